"""The kinds of an audit's findings."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Args:
        heading: the heading of its section in the report.
        meaning: its meaning, and what to do, for a person.
    """

    heading: str
    meaning: str


KINDS = {
    "unreadable": Kind("Files that cannot be read", "They are damaged or not images. Repair or remove them."),
    "label_error": Kind(
        "Labels that are probably wrong",
        "The score is the probability of the image's label, by a classifier that has not seen the image. Hard images "
        "are among them, so look before you relabel.",
    ),
    "leak": Kind(
        "Training images in the test data",
        "The same image is in train and in validation or test, so that a test measures memorized images.",
    ),
    "exact_duplicate": Kind("Exact duplicates", "The same file, or the same pixels in another file."),
    "near_duplicate": Kind(
        "Near duplicates",
        "Images that look the same: encoded again, resized, brightened, or taken a moment later.",
    ),
    "outlier": Kind(
        "Outliers",
        "Images whose features are far from all others: they belong to no class, or to a rare kind that needs more "
        "examples.",
    ),
    "orientation_tag": Kind(
        "Images that are stored turned",
        "An orientation tag turns them upright. keras_bit follows it; programs that ignore it see them turned.",
    ),
    "tiny": Kind("Tiny images", "Their short side is below 32 px, or below a quarter of the data set's median."),
    "gray": Kind("Gray images", "They have no color, unlike most of the others."),
    "cmyk": Kind("CMYK images", "They are made for printing; programs convert them to RGB differently."),
    "transparent": Kind("Transparent images", "Their alpha is dropped, and transparent pixels can have any color."),
    "frames": Kind("Files of several images", "Only the first image of an animation or a document is used."),
    "unusual_shape": Kind(
        "Unusual shapes", "They are far wider or higher than most, so that a crop loses much of them."
    ),
    "blank": Kind("Blank images", "All of their pixels have nearly the same color."),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A finding about an image.

    Args:
        image: its number in the `Collection`.
        kind: a key of `KINDS`.
        score: for a label error the probability of the image's label, for duplicates and leaks the correlation of the
            thumbnails (1 for the same pixels), for an outlier the mean distance to its neighbors; `None` for others.
        suggested: a more probable class than the image's; `None` for none.
        other: the number of the similar image; `None` for none.
        detail: more details, in words.
        exclude: whether to exclude the image from training by default.
    """

    image: int
    kind: str
    score: float | None = None
    suggested: int | None = None
    other: int | None = None
    detail: str = ""
    exclude: bool = False
