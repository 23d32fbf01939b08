"""What a training found, as one page a browser shows without a network: paragraphs, tables, curves, pictures."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from RefSegLib.durable import written_whole
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore, ModelVersion

# Told apart by people who confuse red and green, on light and on dark (Okabe and Ito 2008).
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a8a00", "#7f7f7f")
WIDTH, HEIGHT, LEFT, BOTTOM = 620, 300, 56, 44  # of a plot and its margins
PICTURE = 220  # pixels that the longer side of a small picture is enlarged to, about

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1c1c; --line: #bbb; }
@media (prefers-color-scheme: dark) { :root { --back: #181a1b; --text: #e4e4e4; --line: #555; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 64rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem; text-align: left;
  font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; } figcaption { margin-bottom: .4rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; } .pictures div { text-align: center; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.2rem; font-size: 13px; } .legend b { font-weight: 900; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; } svg .axis { stroke: var(--line); fill: none; }
svg { max-width: 100%; height: auto; }
"""

Image = npt.NDArray
Overlay = tuple[npt.NDArray[np.bool_], str]


def report_folder(store: ModelStore, version: ModelVersion) -> Path:
    """Where the report of a version lies."""
    return Path(store.home) / "reports" / f"{version.name}-{version.version}"


class Report:
    """A page that grows from top to bottom and is written at the end. All text is taken as text, never as HTML."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def text(self, paragraph: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(paragraph)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; what is no text is shown as `str` shows it. Raises BadInput for a row of another length."""
        for row in rows:
            if len(row) != len(header):
                raise BadInput(f"A row of the report has {len(row)} entries, its header {len(header)}: {list(row)}.")
        head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def curve(
        self, title: str, x_title: str, y_title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    ) -> None:
        """A plot of named lines (x, y). Points that are no finite numbers are left out, and the line with them broken
        nowhere; a plot without a single point says so."""
        points = {
            name: [(float(a), float(b)) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
            for name, (x, y) in lines.items()
        }
        drawn = _plot(points, x_title, y_title) if any(points.values()) else "<p>Nothing was recorded.</p>"
        self._parts.append(f"<figure><figcaption><b>{html.escape(title)}</b></figcaption>{drawn}</figure>")

    def pictures(self, caption: str, pictures: Sequence[tuple[str, Image, Sequence[Overlay]]]) -> None:
        """Pictures side by side: (name, image, overlays).

        image: (j, i) numbers of any range, or (j, i, 3) uint8 red, green, blue; overlays: (mask (j, i) bool,
        "#rrggbb"), drawn as the outline of the mask over a light tint. Raises BadInput for arrays of other shapes.
        """
        shown = "".join(
            f'<div><img alt="{html.escape(name)}" src="data:image/png;base64,{_png(name, image, overlays)}">'
            f"<br>{html.escape(name)}</div>"
            for name, image, overlays in pictures
        )
        head = f"<figcaption>{html.escape(caption)}</figcaption>"
        self._parts.append(f'<figure>{head}<div class="pictures">{shown}</div></figure>')

    def write(self, folder: str | Path) -> Path:
        """Write `folder`/report.html, whole or not at all; returns the file. Raises RefSegError if it cannot be."""
        title = html.escape(self.title)
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
            f"<body><h1>{title}</h1>{''.join(self._parts)}</body></html>\n"
        )
        file = Path(folder) / "report.html"
        with written_whole(file) as stream:
            stream.write(page.encode())
        return file


def _plot(points: Mapping[str, Sequence[tuple[float, float]]], x_title: str, y_title: str) -> str:
    spans = []
    for axis in range(2):
        values = [point[axis] for line in points.values() for point in line]
        low, high = min(values), max(values)
        spans.append((low, high) if high > low else (low - 0.5, high + 0.5))
    (x0, x1), (y0, y1) = spans
    right, top, bottom = WIDTH - 12, 26, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + (right - LEFT) * (x - x0) / (x1 - x0), bottom - (bottom - top) * (y - y0) / (y1 - y0)

    parts = [f'<path class="axis" d="M{LEFT} {top}V{bottom}H{right}"/>']
    for value in _ticks(x0, x1):
        parts.append(f'<text x="{at(value, y0)[0]:.1f}" y="{bottom + 16}" text-anchor="middle">{value:.4g}</text>')
    for value in _ticks(y0, y1):
        parts.append(f'<text x="{LEFT - 6}" y="{at(x0, value)[1] + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x_title)}</text>')
    parts.append(f'<text x="{LEFT}" y="12">{html.escape(y_title)}</text>')
    legend = []
    for number, (name, line) in enumerate(points.items()):
        color = COLORS[number % len(COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in (at(*p) for p in line[:1])]
        legend.append(f'<span><b style="color: {color}">&#8212;</b> {html.escape(name)}</span>')
    drawn = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">{"".join(parts)}</svg>'
    return f'<div class="legend">{"".join(legend)}</div>{drawn}'


def _ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers between two others."""
    least = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(least))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _png(name: str, image: Image, overlays: Sequence[Overlay]) -> str:
    """The picture as base64 of a PNG, enlarged by whole numbers so that voxels stay voxels."""
    image = np.asarray(image)
    if image.ndim == 2:
        values = image.astype(np.float32)
        values = np.where(np.isfinite(values), values, 0)
        low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0, 1)
        gray = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
        image = np.repeat((gray * 255).astype(np.uint8)[..., None], 3, -1)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise BadInput(f"Picture '{name}' of the report is {image.shape} {image.dtype}, neither gray nor color.")
    factor = max(1, round(PICTURE / max(image.shape[:2])))
    canvas = np.repeat(np.repeat(image, factor, 0), factor, 1).copy()
    for mask, color in overlays:
        if mask.shape != image.shape[:2]:
            raise BadInput(f"A mask over picture '{name}' of the report has another size: {mask.shape}.")
        rgb = np.array([int(color[n : n + 2], 16) for n in (1, 3, 5)], np.float32)
        large = np.ascontiguousarray(np.repeat(np.repeat(mask, factor, 0), factor, 1).astype(np.uint8))
        inside = large.astype(bool)
        canvas[inside] = (0.8 * canvas[inside] + 0.2 * rgb).astype(np.uint8)
        outlines, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, rgb.tolist(), 1 + factor // 4)
    return base64.b64encode(cv2.imencode(".png", canvas[..., ::-1])[1].tobytes()).decode()
