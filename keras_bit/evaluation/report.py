"""Writes an evaluation as files: metrics as JSON, charts, and the worst mistakes as a contact sheet."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from keras_bit.drawing import charts, colors, contact_sheet, scatter
from keras_bit.evaluation import asking, metrics
from keras_bit.evaluation.evaluating import AnyEvaluation
from keras_bit.evaluation.numbers import NumberEvaluation
from keras_bit.evaluation.several import SeveralEvaluation
from keras_bit.files.writing import check_writable, replacing
from keras_bit.images.processor import BitImageProcessor
from keras_bit.wording import number

REPORT, WORST_SHEET, CONFUSION, CALIBRATION = "report.json", "worst.png", "confusion.png", "calibration.png"
PRECISION, PREDICTIONS = "average_precision.png", "predictions.png"
LOWEST = 40  # classes in the chart of average precisions


def write(
    evaluation: AnyEvaluation,
    directory: str | Path,
    *,
    processor: BitImageProcessor,
    title: Sequence[str] = ("The worst mistakes",),
) -> list[Path]:
    """Writes `report.json`, `worst.png` and, if matplotlib is installed, charts.

    These are `confusion.png` and `calibration.png`; for several labels `average_precision.png`; for numbers
    `predictions.png`.

    Args:
        evaluation: the result of `evaluate`.
        directory: created if needed; files of these names in it are replaced atomically.
        processor: the `BitImageProcessor` that made the images, to undo its steps.
        title: the lines above the sheet of the worst mistakes.

    Returns:
        The files that were written.

    Raises:
        OSError: one cannot be written.
    """
    directory = Path(directory)
    check_writable(directory / REPORT)
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / REPORT, directory / WORST_SHEET]
    with replacing(files[0]) as beside:
        beside.write_text(json.dumps(evaluation.report, indent=2) + "\n", encoding="utf-8")
    with replacing(files[1]) as beside:
        worst_sheet(evaluation, processor, title).save(beside, "PNG")
    if charts.available():
        files += _charts(evaluation, directory)
    return files


def chart_names(problem_type: str) -> tuple[str, ...]:
    """Returns the names of the charts that `write` draws."""
    if problem_type == asking.SEVERAL:
        return (PRECISION,)
    return (PREDICTIONS,) if problem_type == asking.NUMBER else (CONFUSION, CALIBRATION)


def _charts(evaluation: AnyEvaluation, directory: Path) -> list[Path]:
    report = evaluation.report
    if isinstance(evaluation, SeveralEvaluation):
        rows = [row for row in report["per_class"] if row["average_precision"] is not None]
        rows = sorted(rows, key=lambda row: row["average_precision"])[:LOWEST]
        bars = [charts.Bar(row["class"], [(row["average_precision"], colors.BLUE)]) for row in rows]
        of = f"the {LOWEST} lowest of {len(report['per_class'])}" if len(rows) == LOWEST else "all that occur"
        charts.bars({"average precision": bars}, directory / PRECISION, f"Average precision of each label, {of}")
        return [directory / PRECISION]
    if isinstance(evaluation, NumberEvaluation):
        scatter.predictions(evaluation.labels, evaluation.predicted, evaluation.class_names, directory / PREDICTIONS)
        return [directory / PREDICTIONS]
    matrix, names, columns = evaluation.confusion()
    charts.confusion(matrix, names, directory / CONFUSION, column_names=columns)
    calibration = report["calibration"]
    bins = [metrics.Bin(**part) for part in calibration["bins"]]
    charts.calibration(bins, calibration["expected_calibration_error"], directory / CALIBRATION)
    return [directory / CONFUSION, directory / CALIBRATION]


def worst_sheet(evaluation: AnyEvaluation, processor: BitImageProcessor, title: Sequence[str] = ()) -> Image.Image:
    """Draws the worst mistakes, each with the model's answer, the right answer, and the image's name."""
    count = evaluation.report["images"]
    if not evaluation.worst:
        nothing = np.full((1, 8, 64, 3), colors.BACKGROUND, np.uint8)
        return contact_sheet.draw(nothing, [[""]], [*title, f"No mistakes: all {count:,} images are right."])
    lines, text = _lines(evaluation)
    images = [contact_sheet.denormalize(mistake.image, processor) for mistake in evaluation.worst]
    return contact_sheet.draw(_one_size(images), lines, [*title, text])


def _lines(evaluation: AnyEvaluation) -> tuple[list[list[str]], str]:
    """Returns the lines under each of the worst mistakes, and the line above all of them."""
    count, shown = evaluation.report["images"], len(evaluation.worst)
    if isinstance(evaluation, SeveralEvaluation):
        lines = [
            [", ".join(mistake.predicted) or "-", f"right: {', '.join(mistake.true) or '-'}", Path(mistake.name).name]
            for mistake in evaluation.worst
        ]
        wrong = round(count * (1 - evaluation.report["exact_match"]))
        return lines, (
            f"{shown:,} of {wrong:,} images with a wrong label among {count:,}, the largest log loss first. Under "
            "each: the predicted labels; the right ones; the name"
        )
    if isinstance(evaluation, NumberEvaluation):
        several = len(evaluation.class_names) > 1
        numbers = [
            [
                f"{mistake.output + ': ' if several else ''}{number(mistake.predicted)}",
                f"right: {number(mistake.true)}",
                Path(mistake.name).name,
            ]
            for mistake in evaluation.worst
        ]
        return numbers, (
            f"{shown:,} of {count:,} images, the largest error first. Under each: the predicted number; the right one; "
            "the name"
        )
    rows = [
        [
            f"{mistake.probability:.2f} {mistake.predicted}",
            f"right: {mistake.true_probability:.2f} {mistake.true}",
            Path(mistake.name).name,
        ]
        for mistake in evaluation.worst
    ]
    return rows, (
        f"{shown:,} of {count - evaluation.report['right']:,} mistakes in {count:,} images, the highest confidence "
        "first. Under each: the answer after its probability; the right one after its own; the name"
    )


def _one_size(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the images as one array; if sizes differ, each is fitted into a square."""
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    tile = contact_sheet.TILE
    fitted = []
    for image in images:
        square = Image.new("RGB", (tile, tile), colors.BACKGROUND)
        scale = tile / max(image.shape[:2])
        width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
        square.paste(Image.fromarray(image).resize((width, height)), ((tile - width) // 2, (tile - height) // 2))
        fitted.append(np.asarray(square))
    return np.stack(fitted)
