"""The kinds of an audit's findings."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Args:
        heading: the heading of its section in the report.
        meaning: sentences for the report: what it means, and what to do.
    """

    heading: str
    meaning: str


KINDS = {
    "unreadable": Kind(
        "Files that cannot be read", "These files are damaged, or they are not images. Repair or remove them."
    ),
    "label_error": Kind(
        "Labels that are probably wrong",
        "A classifier that did not learn from the image finds another label more probable. Images that are hard to "
        "recognize are here too, so look at an image before you change its label.",
    ),
    "leak": Kind(
        "Training images in the test data",
        "The same image is in train and in validation or test. The model has then seen the test image in training, so "
        "its result on the test is too good.",
    ),
    "exact_duplicate": Kind(
        "Exact duplicates", "These images are copies: the same file, or another file with the same pixels."
    ),
    "near_duplicate": Kind(
        "Near duplicates",
        "These images look the same: one was encoded again, resized or brightened, or taken a moment later.",
    ),
    "outlier": Kind(
        "Outliers",
        "The network finds these images very different from all others. They belong to no class, or they are of a "
        "rare kind that needs more examples.",
    ),
    "orientation_tag": Kind(
        "Images that are stored turned",
        "The pixels are stored turned, and an orientation tag in the file says how to turn them upright. keras_bit "
        "follows the tag. Programs that ignore it see the images turned.",
    ),
    "tiny": Kind("Tiny images", "Their short side is below 32 px, or below a quarter of the data set's median."),
    "gray": Kind("Gray images", "They have no color, but most other images have."),
    "cmyk": Kind("CMYK images", "They are made for printing. Programs convert them to RGB in different ways."),
    "transparent": Kind(
        "Transparent images", "keras_bit ignores the transparency, and a transparent pixel can have any color."
    ),
    "frames": Kind(
        "Files of several images", "These are animations or documents. keras_bit uses only their first image."
    ),
    "unusual_shape": Kind(
        "Unusual shapes", "They are much wider or higher than most images, so a crop loses much of them."
    ),
    "blank": Kind("Blank images", "All of their pixels have nearly the same color."),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A finding about an image.

    Args:
        image: the number of the image in the `Collection`.
        kind: a key of `KINDS`.
        score: for a label error the probability of the image's label, for duplicates and leaks the correlation of the
            thumbnails (1 for the same pixels), for an outlier the mean distance to its neighbors; `None` for others.
        suggested: the number of a class that is more probable than the image's; `None` if there is none.
        other: the number of the similar image; `None` if there is none.
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
