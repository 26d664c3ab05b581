"""Writes an audit's findings as JSON, CSV and a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_bit.data import exclusions
from keras_bit.examining import audit_page
from keras_bit.examining.auditing import Audit
from keras_bit.examining.findings import KINDS
from keras_bit.files.writing import replacing

REPORT, TABLE, PAGE = "audit.json", "audit.csv", "audit.html"


def rows(audit: Audit, data: str | Path) -> list[dict[str, Any]]:
    """Returns the findings with names instead of numbers; the keys are `exclusions.COLUMNS`.

    Args:
        data: the directory of the data set; the images' names are relative to it.
    """
    images, names = audit.collection, audit.class_names

    def name(image: int | None) -> str | None:
        return None if image is None else exclusions.relative(images.paths[image], data)

    return [
        {
            "image": name(one.image),
            "part": images.parts[one.image],
            "kind": one.kind,
            "score": None if one.score is None else round(one.score, 6),
            "label": names[images.labels[one.image]],
            "suggested_label": None if one.suggested is None else names[one.suggested],
            "other_image": name(one.other),
            "detail": one.detail,
            "exclude": one.exclude,
        }
        for one in audit.findings
    ]


def described(audit: Audit, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the whole audit as a dictionary for JSON.

    Args:
        rows: the result of `rows`.
    """
    parts = list(audit.counts)
    excluded = {row["image"] for row in rows if row["exclude"]}
    return {
        "classes": list(audit.class_names),
        "images": {part: sum(audit.counts[part]) for part in parts},
        "images_of_each_class": audit.counts,
        "notes": list(audit.notes),
        "kinds": {kind: sum(row["kind"] == kind for row in rows) for kind in KINDS},
        "excluded": len(excluded),
        "findings": list(rows),
    }


def write(report: dict[str, Any], audit: Audit, directory: str | Path, orientation: str) -> list[Path]:
    """Writes `audit.html`, `audit.csv` and `audit.json`; returns the files.

    Args:
        report: the result of `described`, with the keys `data` and `weights`.
        audit: the audit of the same images.
        directory: an existing directory; files of these names in it are replaced atomically.
        orientation: the option `orientation` of the processor, for the images on the page.
    """
    page, table, whole = (Path(directory) / name for name in (PAGE, TABLE, REPORT))
    with replacing(page) as beside:
        beside.write_text(audit_page.page(report, audit, orientation), encoding="utf-8")
    with replacing(table) as beside:
        exclusions.write_rows(report["findings"], beside)
    with replacing(whole) as beside:
        beside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return [page, table, whole]
