"""Finds odd files and unbalanced classes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_bit.examining.collecting import Collection
from keras_bit.examining.findings import Finding
from keras_bit.examining.image_facts import Facts

SMALLEST_SIDE = 32  # px, one position of the network's last feature map
SMALLEST_SHARE = 0.25  # of the median short side
UNUSUAL = 2.5  # times as wide for its height as the median, or as high for its width
RULE = 0.1  # a property of a larger share of images is not odd
FAR_OUT = 3.0  # interquartile ranges above the third quartile, as in Tukey's definition
IMBALANCE = 10.0  # times as many images in the largest class as in the smallest

WORDS = {2: "mirrored", 3: "upside down", 4: "upside down and mirrored", 5: "on its side and mirrored"}
WORDS |= {6: "on its side", 7: "on its side and mirrored", 8: "on its side"}


def oddities(collection: Collection) -> tuple[list[Finding], list[str]]:
    """Returns the unreadable and odd files, and a sentence for each property of more than a tenth of all."""
    found = [
        Finding(i, "unreadable", detail=f.problem, exclude=True) for i, f in enumerate(collection.facts) if f.problem
    ]
    readable = [(image, facts) for image, facts in enumerate(collection.facts) if not facts.problem]
    side = float(np.median([min(facts.height, facts.width) for _, facts in readable]))
    aspect = float(np.median([facts.width / facts.height for _, facts in readable]))
    notes = []
    for kind, detail in _checks(side, aspect).items():
        odd = [(image, text) for image, facts in readable if (text := detail(facts))]
        if len(odd) > RULE * len(readable) and len(odd) > 1:
            notes.append(
                f"{len(odd):,} of {len(readable):,} images: {RULES[kind]}. The audit does not list them, because they "
                f"are more than {RULE:.0%} of all."
            )
        else:
            found += [Finding(image, kind, detail=text) for image, text in odd]
    return found, notes


# Kind of a finding to the end of a sentence about many images.
RULES = {
    "orientation_tag": "they are stored turned, and an orientation tag turns them upright",
    "tiny": "they are tiny",
    "gray": "they are gray",
    "cmyk": "they are CMYK",
    "transparent": "parts of them are transparent, which keras_bit ignores",
    "frames": "they are the first of several images in their file, and keras_bit ignores the others",
    "unusual_shape": "they are much wider or higher than the median",
    "blank": "they are blank",
}


def _checks(side: float, aspect: float) -> Mapping[str, Callable[[Facts], str]]:
    """Returns for each kind a description of what is odd about an image; an empty text if it is not odd.

    Args:
        side: the median short side, in px.
        aspect: the median of width / height.
    """
    least = max(SMALLEST_SIDE, SMALLEST_SHARE * side)

    def unusual(facts: Facts) -> str:
        ratio = facts.width / facts.height / aspect
        return _size(facts) if max(ratio, 1 / ratio) > UNUSUAL else ""

    return {
        "orientation_tag": lambda facts: (
            f"tag {facts.orientation}: stored {WORDS.get(facts.orientation)}" if facts.orientation != 1 else ""
        ),
        "tiny": lambda facts: _size(facts) if min(facts.height, facts.width) < least else "",
        "gray": lambda facts: f"mode {facts.mode}" if facts.is_gray and not facts.is_blank else "",
        "cmyk": lambda facts: "mode CMYK" if facts.mode == "CMYK" else "",
        "transparent": lambda facts: f"mode {facts.mode}" if facts.is_transparent else "",
        "frames": lambda facts: f"{facts.frames} images" if facts.frames > 1 else "",
        "unusual_shape": unusual,
        "blank": lambda facts: "one color" if facts.is_blank else "",
    }


def _size(facts: Facts) -> str:
    return f"{facts.width} x {facts.height} px"


def outliers(images: np.ndarray, distances: np.ndarray) -> list[Finding]:
    """Returns the images with an unusually large distance to their neighbors, the farthest first.

    Args:
        images: int64 `(count,)`, numbers of images.
        distances: float32 `(count,)`.
    """
    low, high = np.quantile(distances, [0.25, 0.75])
    far = np.flatnonzero(distances > high + FAR_OUT * (high - low))
    far = far[np.argsort(-distances[far], kind="stable")]
    return [Finding(int(images[place]), "outlier", float(distances[place])) for place in far]


def class_counts(collection: Collection, class_names: Sequence[str]) -> dict[str, list[int]]:
    """Counts the images of each class, for each part."""
    parts = np.array(collection.parts)
    return {
        part: np.bincount(collection.labels[parts == part], minlength=len(class_names)).tolist()
        for part in dict.fromkeys(collection.parts)
    }


def about_balance(counts: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> list[str]:
    """Returns a sentence for each part whose classes differ much in size."""
    notes = []
    for part, numbers in counts.items():
        least, most = int(np.argmin(numbers)), int(np.argmax(numbers))
        if numbers[most] > IMBALANCE * numbers[least]:
            notes.append(
                f"{part}: {numbers[most]:,} images of {class_names[most]}, and {numbers[least]:,} of "
                f"{class_names[least]}. Accuracy says little about small classes, so look at the mean recall."
            )
    return notes
