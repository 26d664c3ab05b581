"""The fastest `quantize` for a processor, by its instructions, from a table of measurements."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

INT8 = "int8"
WORTH = 0.9  # int8 is recommended if it takes at most this share of float32's time
AS_FAST_AS_FLOAT32 = (None, "float16")  # 16-bit weights become float32 when the file is loaded
QUANTIZABLE = ("tflite", "onnx", "openvino")  # formats with int8 for engines on this machine


class Kind(NamedTuple):
    """Processors with one of some instructions.

    Args:
        name: a description for a sentence, after the processor's own name.
        instructions: the names of instructions, as in `machine()`.
        quantize: the quantization of the fastest file, if the format was not measured.
        int8: format to the time of an int8 file, as a share of the time of float32 in the same engine.
    """

    name: str
    instructions: tuple[str, ...]
    quantize: str | None
    int8: Mapping[str, float]


# The first that fits. One image of 224 px, BiT-50, one thread.
KINDS = (
    Kind(
        "with VNNI",
        ("avx512_vnni", "avx_vnni"),
        INT8,
        {"tflite": 0.35, "onnx": 0.48, "openvino": 0.42},
    ),
    Kind("with dot products of 8 bits", ("asimddp", "i8mm"), INT8, {}),
    Kind("with AVX2 and without VNNI", ("avx2",), None, {"tflite": 1.09, "onnx": 0.61, "openvino": 0.54}),
)


def sentence(
    format: str, quantize: str | None, machine: Mapping[str, Any], quantizable: Collection[str] = QUANTIZABLE
) -> str:
    """Returns a sentence on whether the written file is the best one on this processor.

    Args:
        format: the format of `export`, by its own name.
        quantize: the `quantize` of `export`.
        machine: the result of `keras_bit.exporters.machine.machine`.
        quantizable: those of `QUANTIZABLE` that `export` can write in int8 for this model.

    Returns:
        The sentence; empty for formats without an engine on this machine: "web" and "huggingface".
    """
    if format not in (*QUANTIZABLE, "saved_model"):
        return ""
    kind = _kind(machine["instructions"])
    if kind is None:
        return (
            f"Which file is the fastest on this processor ({machine['processor']}) is not known: "
            "`keras-bit benchmark` measures it."
        )
    where = f"on this processor ({machine['processor']}, {kind.name})"
    if format == "saved_model":
        return _without_int8("a SavedModel cannot have it", where, kind, quantizable)
    best = _best(kind, format)
    if best == INT8 and format not in quantizable:
        return _without_int8(f"the format {format!r} cannot have it for this model", where, kind, quantizable)
    fits = quantize in AS_FAST_AS_FLOAT32 if best is None else quantize == best
    what = f"This file is the one to use {where}" if fits else f"{_upper(where)} use {best or 'float32'}"
    if format in kind.int8:
        return f"{what}: int8 took {kind.int8[format]:.2f} of the time of float32 on such a processor."
    return f"{what}, judged by its instructions; `keras-bit benchmark` measures it."


def _without_int8(why: str, where: str, kind: Kind, quantizable: Collection[str]) -> str:
    faster = [format for format in quantizable if _best(kind, format) == INT8]
    if not faster:
        return f"This file is the one to use {where}: int8 of other formats is not known to be faster there."
    use = f"use the format {_either(faster)}, and compare with `keras-bit benchmark`"
    return f"{_upper(where)} int8 can be faster, but {why}: {use}."


def _kind(instructions: Sequence[str]) -> Kind | None:
    return next((kind for kind in KINDS if {*kind.instructions} & {*instructions}), None)


def _best(kind: Kind, format: str) -> str | None:
    if format not in kind.int8:
        return kind.quantize
    return INT8 if kind.int8[format] <= WORTH else None


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _either(names: Sequence[str]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}" if first else last
