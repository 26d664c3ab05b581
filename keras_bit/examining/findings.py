"""What an audit finds."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Args:
        heading: of its section in the report.
        meaning: what it says and what to do, for a person.
    """

    heading: str
    meaning: str


KINDS = {
    "unreadable": Kind("Files that cannot be read", "They are no images, or damaged. Mend or remove them."),
    "label_error": Kind(
        "Labels that are probably wrong",
        "The score is how probable the image's own label is for a classifier that has not seen the image. Hard images "
        "are among them: look before you relabel.",
    ),
    "leak": Kind(
        "Training images that are tested with",
        "The same image is in train and in validation or test, so that a test measures what was learned by heart.",
    ),
    "exact_duplicate": Kind("Exact duplicates", "The same file, or the same pixels in another file."),
    "near_duplicate": Kind(
        "Near duplicates",
        "Images that look the same: encoded again, resized, brightened, or taken a moment later.",
    ),
    "outlier": Kind(
        "Outliers",
        "Images that are far from all others by what the network sees: of no class, or of a rare kind that needs more "
        "examples.",
    ),
    "orientation_tag": Kind(
        "Images that are stored turned",
        "An orientation tag turns them upright. keras_bit does so; programs that ignore the tag see them turned.",
    ),
    "tiny": Kind("Tiny images", "Their short side is below 32 px, or below a quarter of the data set's median."),
    "gray": Kind("Gray images", "They have no color, and most of the others have."),
    "cmyk": Kind("CMYK images", "They are made for printing; each program has its own way to RGB."),
    "transparent": Kind("Transparent images", "Their alpha is dropped, and what is below it can be anything."),
    "frames": Kind("Files of several images", "Of an animation or a document the first image is used."),
    "unusual_shape": Kind(
        "Unusual shapes", "They are far wider or higher than most, so that a crop loses much of them."
    ),
    "blank": Kind("Blank images", "All of their pixels have nearly the same color."),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is to be said about an image.

    Args:
        image: its number in the `Collection`.
        kind: a key of `KINDS`.
        score: of a label error the probability of the image's label, of duplicates and leaks the correlation of the
            thumbnails (1 for the same pixels), of an outlier the mean distance to its neighbors; `None` for others.
        suggested: a class that is more probable than the image's; `None` for none.
        other: the number of the image that looks the same; `None` for none.
        detail: more of it, in words.
        exclude: whether training should do without the image, unless a person decides otherwise.
    """

    image: int
    kind: str
    score: float | None = None
    suggested: int | None = None
    other: int | None = None
    detail: str = ""
    exclude: bool = False
