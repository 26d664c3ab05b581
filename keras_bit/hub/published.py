"""The table of published BiT checkpoints, with their authors' figures."""

import dataclasses
import fnmatch
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = ("imagenet", "imagenet21k")  # as in `keras.applications`: the architecture's own checkpoint
GOOGLE = "https://storage.googleapis.com/bit_models/"  # google-research/big_transfer, README.md

# Layers and width, as in timm's and Google's names, to the function of keras_bit and the number of parameters without
# the head, which has 2,048 times the width as inputs.
_ARCHITECTURES = {
    "50x1": ("BiT50", 23_500_352),
    "50x3": ("BiT50x3", 211_174_080),
    "101x1": ("BiT101", 42_492_480),
    "101x3": ("BiT101x3", 381_789_888),
    "152x2": ("BiT152x2", 232_238_208),
    "152x4": ("BiT152x4", 928_340_224),
}
# Tag, architecture, side of an image in pixels, top-1 accuracy in % on ImageNet-1k's validation images. Tags and sizes:
# timm 1.0.31 `models/resnetv2.py`; accuracies: its `results/results-imagenet.csv`.
_TIMM: tuple[tuple[str, str, int, float | None], ...] = (
    ("goog_in21k_ft_in1k", "50x1", 448, 80.386),
    ("goog_in21k_ft_in1k", "50x3", 448, 83.982),
    ("goog_in21k_ft_in1k", "101x1", 448, 82.332),
    ("goog_in21k_ft_in1k", "101x3", 448, 84.430),
    ("goog_in21k_ft_in1k", "152x2", 448, 84.468),
    ("goog_in21k_ft_in1k", "152x4", 480, 84.936),
    ("goog_in21k", "50x1", 224, None),
    ("goog_in21k", "50x3", 224, None),
    ("goog_in21k", "101x1", 224, None),
    ("goog_in21k", "101x3", 224, None),
    ("goog_in21k", "152x2", 224, None),
    ("goog_in21k", "152x4", 224, None),
    ("goog_distilled_in1k", "50x1", 224, 82.820),
    ("goog_teacher_in21k_ft_in1k", "152x2", 224, 82.918),
    ("goog_teacher_in21k_ft_in1k_384", "152x2", 384, 83.858),
)
# Google's files of the same, as named in the README of google-research/big_transfer. timm's were made from all of them
# except R50x1_160, whose accuracy comes from that README.
_DISTILLED: tuple[tuple[str, str, int, float | None], ...] = (
    ("R50x1_224", "50x1", 224, 82.820),
    ("R50x1_160", "50x1", 160, 80.5),
    ("R152x2_T_224", "152x2", 224, 82.918),
    ("R152x2_T_384", "152x2", 384, 83.858),
)
_RUNS = (0, 1, 2)
_VTAB_ARCHITECTURES = ("50x1", "101x1", "50x3", "101x3", "152x4")
# The tasks of VTAB-1k in big_transfer's README, with their numbers of classes (google-research's task_adaptation). The
# image size of this fine-tuning is not published.
_VTAB_CLASSES = {
    "caltech101": 102,
    "diabetic_retinopathy": 5,
    "dtd": 47,
    "oxford_flowers102": 102,
    "oxford_iiit_pet": 37,
    "resisc45": 45,
    "sun397": 397,
    "cifar100": 100,
    "eurosat": 10,
    "patch_camelyon": 2,
    "smallnorb-elevation": 9,
    "svhn": 10,
    "dsprites-orientation": 16,
    "smallnorb-azimuth": 18,
    "clevr-distance": 6,
    "clevr-count": 8,
    "dmlab": 6,
    "kitti-distance": 4,
    "dsprites-xpos": 16,
}


@dataclasses.dataclass(frozen=True)
class PublishedCheckpoint:
    """A published checkpoint: a row of `list_checkpoints`.

    Args:
        name: the name for `from_pretrained` and `weights=`.
        source: an id on the Hub, or the address of a file.
        architecture: the function of keras_bit that builds it.
        classes: the number of classes of its head.
        image_size: side in pixels of the images to classify; `None` if it is not published.
        top_1: accuracy in % on ImageNet-1k's validation images at that size; `None` if it is not published.
        license: its SPDX identifier in lower case.
        bytes: the size of its tensors, four bytes for each parameter; the file has some kilobytes more.
    """

    name: str
    source: str
    architecture: str
    classes: int
    image_size: int | None
    top_1: float | None
    license: str | None
    bytes: int | None

    def __str__(self) -> str:
        size = "" if self.image_size is None else f"{self.image_size} px"
        top_1 = "" if self.top_1 is None else f"{self.top_1:.3f} %"
        megabytes = "" if self.bytes is None else f"{self.bytes / 1e6:,.0f} MB"
        return (
            f"{self.name:<49} {self.architecture:<8} {self.classes:>6,} classes {size:>6} {top_1:>8} "
            f"{megabytes:>8} {self.license or ''}"
        ).rstrip()


def list_checkpoints(pattern: str = "*") -> list[PublishedCheckpoint]:
    """Lists the published BiT checkpoints. `from_pretrained(row.name)` loads one.

    These are `google/bit-50`, timm's, and Google's own files: pre-trained (BiT-S, BiT-M), fine-tuned on ImageNet-1k,
    distilled, and fine-tuned on the tasks of VTAB-1k.

    Examples:
        >>> print(*list_checkpoints("*50x1_bit.goog_*ft*"))
        resnetv2_50x1_bit.goog_in21k_ft_in1k              BiT50     1,000 classes 448 px 80.386 %   102 MB apache-2.0

    Args:
        pattern: a text in which `*` and `?` stand for other characters, as in file names. The name, the source or the
            architecture of a row must match it, in upper or lower case.

    Returns:
        A row for each checkpoint, with its `name`, `source`, `architecture`, `classes`, `image_size`, `top_1`,
        `license` and `bytes`.

    Raises:
        TypeError: `pattern` is not a string.

    Source of the figures: timm 1.0.31 and the README of google-research/big_transfer.
    """
    if not isinstance(pattern, str):
        raise TypeError(
            f"`pattern` must be a string such as '*50x1*', got {type(pattern).__name__}: {pattern!r}. '*' lists all."
        )
    wanted = pattern.lower()
    return [
        row
        for row in _rows()
        if any(fnmatch.fnmatchcase(text.lower(), wanted) for text in (row.name, row.source, row.architecture))
    ]


def of_architecture(weights: str | Path, title: str | None) -> str | Path:
    """Returns `weights`, or the source that one of `WORDS` means for an architecture.

    Args:
        weights: the typed text.
        title: the architecture's name, such as `"BiT50"`; `None` if it is not a published one.

    Raises:
        ValueError: it is one of the words, but the architecture has no published checkpoint.
    """
    if not isinstance(weights, str) or weights not in WORDS:
        return weights
    layers = {name: layers for layers, (name, _) in _ARCHITECTURES.items()}.get(title or "")
    if layers is None:
        raise ValueError(
            f"`weights` {weights!r} means the architecture's published checkpoint, but `config` has none. The "
            f"architectures with one are {', '.join(title for title, _ in _ARCHITECTURES.values())}. Pass another "
            f"checkpoint, or './{weights}' for a folder of that name."
        )
    if weights == "imagenet":
        name = "google/bit-50" if layers == "50x1" else f"timm/resnetv2_{layers}_bit.goog_in21k_ft_in1k"
    else:
        name = f"timm/resnetv2_{layers}_bit.goog_in21k"
    return f"hf://{name}"  # so that it never means a local directory


@functools.cache
def by_name() -> dict[str, PublishedCheckpoint]:
    """Returns the rows of `list_checkpoints` by name, except those whose name is an id on the Hub."""
    return {row.name: row for row in _rows() if row.name != row.source}


@functools.cache
def by_source() -> dict[str, PublishedCheckpoint]:
    return {row.source: row for row in _rows()}


def timms_config(row: PublishedCheckpoint) -> dict[str, Any]:
    """Returns a `config.json` in timm's layout for one of Google's files, which have none."""
    layers = next(layers for layers, (title, _) in _ARCHITECTURES.items() if title == row.architecture)
    config: dict[str, Any] = {"architecture": f"resnetv2_{layers}_bit", "num_classes": row.classes}
    if row.image_size is not None:
        # timm's preprocessing for the same weights.
        config["pretrained_cfg"] = {
            "input_size": [3, row.image_size, row.image_size],
            "crop_pct": 0.875 if row.image_size <= 224 else 1.0,
            "interpolation": "bicubic" if "/distill/" in row.source else "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        }
    return config


@functools.cache
def _rows() -> tuple[PublishedCheckpoint, ...]:
    return (
        _row("google/bit-50", "google/bit-50", "50x1", 1000, 448, 80.386),
        *_timms(),
        *(
            _row(name, f"{GOOGLE}{folder}{name}.npz", layers, classes, size, top_1)
            for name, folder, layers, classes, size, top_1 in _googles()
        ),
    )


def _timms() -> Iterator[PublishedCheckpoint]:
    for tag, layers, size, top_1 in _TIMM:
        name = f"resnetv2_{layers}_bit.{tag}"
        yield _row(name, f"timm/{name}", layers, 21843 if tag == "goog_in21k" else 1000, size, top_1)


def _googles() -> Iterator[tuple[str, str, str, int, int | None, float | None]]:
    """Yields name, folder, architecture, classes, side of an image and accuracy."""
    # Pre-trained on ImageNet-1k (S) or ImageNet-21k (M), at timm's size for the latter.
    yield from ((f"BiT-S-R{layers}", "", layers, 1000, 224, None) for layers in _ARCHITECTURES)
    yield from ((f"BiT-M-R{layers}", "", layers, 21843, 224, None) for layers in _ARCHITECTURES)
    for tag, layers, size, top_1 in _TIMM:
        if tag == "goog_in21k_ft_in1k":  # the same weights
            yield f"BiT-M-R{layers}-ILSVRC2012", "", layers, 1000, size, top_1
    yield from ((name, "distill/", layers, 1000, size, top_1) for name, layers, size, top_1 in _DISTILLED)
    for layers, run, (task, classes) in itertools.product(_VTAB_ARCHITECTURES, _RUNS, _VTAB_CLASSES.items()):
        yield f"BiT-M-R{layers}-run{run}-{task}", "vtab/", layers, classes, None, None


def _row(
    name: str, source: str, layers: str, classes: int, size: int | None, top_1: float | None
) -> PublishedCheckpoint:
    title, parameters = _ARCHITECTURES[layers]
    inputs = 2048 * int(layers.partition("x")[2])
    # timm's `default_cfgs`, the card of google/bit-50, and the LICENSE of google-research/big_transfer.
    license = "apache-2.0"
    return PublishedCheckpoint(
        name, source, title, classes, size, top_1, license, 4 * (parameters + (inputs + 1) * classes)
    )
