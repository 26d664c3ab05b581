"""The page of an audit's findings: one file with embedded images and without scripts."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from keras_bit.data.reading import attempted
from keras_bit.examining.auditing import Audit
from keras_bit.examining.findings import KINDS, Finding
from keras_bit.images import inputs

SHOWN = 60  # findings per kind on the page; the CSV has all
SIDE = 144  # px, the longer side of an image in the page
SMALL = 48  # px; smaller images are PNG, shown with square pixels
QUALITY = 80  # of JPEG

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #595959; --paper: #fafafa; --card: #fff;
  --line: #d5d5d5; --bar: #1f5fa8; --mark: #a33b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --faint: #b5b5b5; --paper: #181818; --card: #222;
  --line: #444; --bar: #6aa5e8; --mark: #ffb07c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p { margin: .25rem 0 .75rem; max-width: 45rem; }
a { color: var(--bar); }
.faint { color: var(--faint); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { font-weight: 600; }
.bar { display: block; height: .6rem; min-width: 1px; background: var(--bar); }
th[scope="row"] { overflow-wrap: break-word; min-width: 5.5rem; }
td.bars { width: 14rem; min-width: 5rem; vertical-align: middle; }
.cards { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); padding: 0;
  list-style: none; }
.cards.pairs { grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; height: 100%; padding: .5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; }
.images { display: flex; gap: .5rem; justify-content: center; align-items: center; min-height: 9rem; }
.images img { display: block; max-width: calc(50% - .25rem); max-height: 9rem; }
.images img:only-child { max-width: 100%; }
.images img.small { width: 7rem; height: auto; image-rendering: pixelated; }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .4rem; }
figcaption div { margin-top: .15rem; }
.change { font-weight: 600; }
.excluded { color: var(--mark); }
"""


def page(report: dict[str, Any], audit: Audit, orientation: str) -> str:
    """Returns the page as HTML.

    Args:
        report: the result of `audit_report.described`, with the keys `data` and `weights`.
        audit: the audit of the same images.
        orientation: the option `orientation` of the processor, which says whether images are turned upright.
    """
    title = f"Audit of {shown(report['data'])}"
    count = sum(report["images"].values())
    parts = ", ".join(f"{number:,} in {part}" for part, number in report["images"].items())
    body = [
        f"<h1>{title}</h1>",
        f"<p>The audit looked at {count:,} images ({parts}) of {len(audit.class_names):,} classes, with the "
        f"network {shown(report['weights'])}.</p>",
        *_overview(report),
        *_balance(audit),
        *(line for kind in KINDS for line in _section(kind, report, audit, orientation)),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # File names may come from anywhere, so the page cannot run scripts or load anything.
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">",
            f"<title>{title}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>\n",
        ]
    )


def shown(text: str) -> str:
    """Escapes any text for HTML, including control characters and bytes that are not UTF-8."""
    return html.escape("".join(one if one.isprintable() else repr(one)[1:-1] for one in text))


def _overview(report: dict[str, Any]) -> Iterator[str]:
    excluded = dict.fromkeys(KINDS, 0)
    for row in report["findings"]:
        excluded[row["kind"]] += row["exclude"]
    found = {kind: number for kind, number in report["kinds"].items() if number}
    if not found:
        yield "<p>The audit found no mistakes.</p>"
    else:
        yield '<div class="wide"><table>'
        yield '<thead><tr><th scope="col">Finding</th><th scope="col" class="number">Images</th>'
        yield '<th scope="col" class="number">Excluded</th></tr></thead><tbody>'
        for kind, number in found.items():
            yield f'<tr><th scope="row"><a href="#{kind}">{KINDS[kind].heading}</a></th>'
            yield f'<td class="number">{number:,}</td><td class="number">{excluded[kind]:,}</td></tr>'
        yield "</tbody></table></div>"
        yield (
            "<p>Every finding is a row of audit.csv. The command <code>keras-bit finetune DATA --exclude audit.csv"
            f"</code> leaves out the images whose column <code>exclude</code> is yes: {report['excluded']:,} images "
            "now. You may edit this column before you run the command.</p>"
        )
    if report["notes"]:
        yield "<ul>"
        yield from (f"<li>{shown(note)}</li>" for note in report["notes"])
        yield "</ul>"


def _balance(audit: Audit) -> Iterator[str]:
    parts = list(audit.counts)
    most = max(max(audit.counts[parts[0]]), 1)
    yield "<h2>Images of each class</h2>"
    yield '<div class="wide"><table><thead><tr><th scope="col">Class</th>'
    yield "".join(f'<th scope="col" class="number">{shown(part)}</th>' for part in parts)
    yield f'<th scope="col">Images of {shown(parts[0])}, as a bar</th></tr></thead><tbody>'
    for label, name in enumerate(audit.class_names):
        numbers = "".join(f'<td class="number">{audit.counts[part][label]:,}</td>' for part in parts)
        width = 100 * audit.counts[parts[0]][label] / most
        yield f'<tr><th scope="row">{shown(name)}</th>{numbers}'
        yield f'<td class="bars"><span class="bar" style="width: {width:.1f}%"></span></td></tr>'
    yield "</tbody></table></div>"


def _section(kind: str, report: dict[str, Any], audit: Audit, orientation: str) -> Iterator[str]:
    found = [(one, row) for one, row in zip(audit.findings, report["findings"], strict=True) if one.kind == kind]
    if not found:
        return
    yield f'<section aria-labelledby="{kind}">'
    yield f'<h2 id="{kind}">{KINDS[kind].heading} ({len(found):,})</h2>'
    yield f"<p>{KINDS[kind].meaning}</p>"
    if len(found) > SHOWN:
        yield f'<p class="faint">The first {SHOWN} of {len(found):,} findings. audit.csv has all of them.</p>'
    if kind == "unreadable":
        yield "<ul>"
        yield from (f"<li>{shown(one.detail)}</li>" for one, _ in found[:SHOWN])
        yield "</ul>"
    else:
        pairs = " pairs" * any(one.other is not None for one, _ in found)
        yield f'<ul class="cards{pairs}">'
        yield from (_card(one, row, audit, orientation) for one, row in found[:SHOWN])
        yield "</ul>"
    yield "</section>"


def _card(finding: Finding, row: dict[str, Any], audit: Audit, orientation: str) -> str:
    images = [finding.image] + ([] if finding.other is None else [finding.other])
    names = [row["image"]] + ([] if finding.other is None else [row["other_image"]])
    labels = [audit.class_names[audit.collection.labels[image]] for image in images]
    tags = [
        _image(audit.collection.paths[image], f"{name}, labeled {label}", orientation)
        for image, name, label in zip(images, names, labels, strict=True)
    ]
    first, second = _told(finding, row, labels)
    lines = [f'<div class="change">{first}</div>', f'<div class="faint">{second}</div>']
    lines += [f"<div>{shown(name)}</div>" for name in names]
    if row["exclude"]:
        lines.append('<div class="excluded">excluded in audit.csv</div>')
    caption = f"<figcaption>{''.join(lines)}</figcaption>"
    return f'<li><figure><div class="images">{"".join(tags)}</div>{caption}</figure></li>'


def _told(finding: Finding, row: dict[str, Any], labels: Sequence[str]) -> tuple[str, str]:
    """Returns the two lines below an image as HTML, the more important one first."""
    if finding.suggested is not None:
        score = 100 * (finding.score or 0)
        own = "less than 0.1" if score < 0.1 else f"{score:.1f}"
        return f"{shown(labels[0])} → {shown(row['suggested_label'])}?", f"{shown(labels[0])}: {own} % probable"
    named = shown(" and ".join(dict.fromkeys(labels)))
    if finding.kind == "outlier":
        return named, f"mean distance to its neighbors: {finding.score:.3f}"
    alike = "" if finding.score in (None, 1.0) else f", correlation {finding.score:.3f}"
    return named, f"{shown(finding.detail)}{alike}"


def _image(path: str, alt: str, orientation: str) -> str:
    """Returns an image as a tag with embedded data; only its description if the file cannot be read any more."""
    found = attempted(path, lambda: _encoded(path, orientation))
    if isinstance(found, str):
        return f"<span>{shown(alt)}</span>"
    kind, contents, width, height = found
    small = ' class="small"' if max(width, height) <= SMALL else ""
    return (
        f'<img{small} loading="lazy" width="{width}" height="{height}" alt="{shown(alt)}" '
        f'src="data:image/{kind};base64,{base64.b64encode(contents).decode()}">'
    )


def _encoded(path: str, orientation: str) -> tuple[str, bytes, int, int]:
    image = inputs.to_rgb(path, inputs.read(path, path, orientation))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    kind, options = ("png", {}) if max(image.size) <= SMALL else ("jpeg", {"quality": QUALITY})
    file = io.BytesIO()
    image.info.clear()  # without profile, comment or GPS position
    image.save(file, kind, **options)
    return kind, file.getvalue(), image.width, image.height
