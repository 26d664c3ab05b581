"""An evaluation as files: the numbers as JSON, charts, and the worst mistakes as a contact sheet."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from keras_bit.drawing import charts, colors, contact_sheet
from keras_bit.evaluation import metrics
from keras_bit.evaluation.evaluating import Evaluation
from keras_bit.files import check_writable, replacing
from keras_bit.images.processor import BitImageProcessor

REPORT, WORST_SHEET, CONFUSION, CALIBRATION = "report.json", "worst.png", "confusion.png", "calibration.png"


def write(
    evaluation: Evaluation,
    directory: str | Path,
    *,
    processor: BitImageProcessor,
    title: Sequence[str] = ("The worst mistakes",),
) -> list[Path]:
    """Writes `report.json`, `worst.png` and, where matplotlib is installed, `confusion.png` and `calibration.png`.

    Args:
        evaluation: what `evaluate` found.
        directory: made if need be; files of these names in it are replaced, each whole or not at all.
        processor: the `BitImageProcessor` that made the images, to undo what it did.
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
        files += [directory / CONFUSION, directory / CALIBRATION]
        matrix, rows, columns = evaluation.confusion()
        charts.confusion(matrix, rows, files[2], column_names=columns)
        calibration = evaluation.report["calibration"]
        bins = [metrics.Bin(**part) for part in calibration["bins"]]
        charts.calibration(bins, calibration["expected_calibration_error"], files[3])
    return files


def worst_sheet(evaluation: Evaluation, processor: BitImageProcessor, title: Sequence[str] = ()) -> Image.Image:
    """The mistakes that the model was surest of, with what it says, what they are, and their names."""
    count = evaluation.report["pictures"]
    wrong = count - evaluation.report["right"]
    if not evaluation.worst:
        nothing = np.full((1, 8, 64, 3), colors.BACKGROUND, np.uint8)
        return contact_sheet.draw(nothing, [[""]], [*title, f"No mistakes: all {count:,} images are right."])
    lines = [
        [
            f"{mistake.probability:.2f} {mistake.predicted}",
            f"right: {mistake.true_probability:.2f} {mistake.true}",
            Path(mistake.name).name,
        ]
        for mistake in evaluation.worst
    ]
    text = (
        f"{len(lines):,} of {wrong:,} mistakes in {count:,} images, the surest first. Under each: the answer "
        "after its probability; the right one after its own; the name"
    )
    images = [contact_sheet.denormalize(mistake.image, processor) for mistake in evaluation.worst]
    return contact_sheet.draw(_one_size(images), lines, [*title, text])


def _one_size(images: Sequence[np.ndarray]) -> np.ndarray:
    """The images as one array; of several sizes, each is fitted into a square."""
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
