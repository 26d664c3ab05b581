"""Writes a probe's results as JSON and as a chart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_bit.drawing import charts
from keras_bit.examining.features import Features
from keras_bit.examining.probing import Result
from keras_bit.files.writing import replacing

REPORT, CHART = "probe.json", "probe.png"


def described(results: Sequence[Result], train: Features, test: Features, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns the results as a dictionary for JSON."""
    return {
        "classes": list(class_names),
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "features": int(train.values.shape[1]),
        "results": [
            {
                "method": result.method,
                "shots": result.shots,
                "accuracies": list(result.accuracies),
                "mean": result.mean,
                "standard_deviation": result.spread,
            }
            for result in results
        ],
        "skipped": [*train.skipped, *test.skipped],
    }


def write(report: dict[str, Any], results: Sequence[Result], largest_class: int, directory: str | Path) -> list[Path]:
    """Writes `probe.json` and, if matplotlib is installed, `probe.png`; returns the files.

    Args:
        report: the result of `described`.
        results: the results of the same probe.
        largest_class: the number of images of the largest class, where the chart shows the result for all images.
        directory: an existing directory; files of these names in it are replaced atomically.
    """
    files = [Path(directory) / REPORT]
    with replacing(files[0]) as beside:
        beside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if charts.available():
        files.append(Path(directory) / CHART)
        curves: dict[str, list[tuple[float, float, float]]] = {}
        for result in results:
            point = (result.shots or largest_class, result.mean, result.spread)
            curves.setdefault(result.method, []).append(point)
        charts.shots(curves, len(report["classes"]), files[1])
    return files
