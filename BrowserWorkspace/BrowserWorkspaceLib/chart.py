"""Curves as a picture for the page (SVG): a few points are not worth a plotting library."""

from html import escape
from itertools import cycle

import numpy as np

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 30
# Told apart on dark and on light pages, and by most who see fewer colors (Okabe and Ito).
COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
MARKED = 12  # curves of so few points show each of them


def chart(x_title, y_title, series) -> str:
    """SVG of named curves; empty if there are none. series: name -> (x, y) or (x, y, a text for each point)."""
    series = {name: curve for name, curve in series.items() if len(curve[0])}
    if not series:
        return ""
    xs = np.concatenate([np.asarray(curve[0], float) for curve in series.values()])
    ys = np.concatenate([np.asarray(curve[1], float) for curve in series.values()])
    (x0, x1), (y0, y1) = _range(xs), _range(ys)

    def place(x, y):
        along = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return along, HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    bottom = HEIGHT - BOTTOM
    middle = (TOP + bottom) / 2
    parts = [_line((LEFT, bottom), (WIDTH - RIGHT, bottom)), _line((LEFT, TOP), (LEFT, bottom))]
    parts += [_text(LEFT - 4, place(x0, y)[1] + 3, f"{y:.3g}", "end") for y in (y0, y1)]
    parts += [_text(place(x, y0)[0], bottom + 12, f"{x:g}", "middle") for x in (xs.min(), xs.max())]
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 4, x_title, "middle"))
    turned = _text(10, middle, y_title, "middle")
    parts.append(f'<g transform="rotate(-90 10 {middle})">{turned}</g>')
    for (name, curve), color in zip(series.items(), cycle(COLORS)):
        places = [place(float(x), float(y)) for x, y in zip(curve[0], curve[1], strict=True)]
        texts = curve[2] if len(curve) == 3 else [f"{y:.4g}" for y in curve[1]]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        if len(places) <= MARKED:
            told = [escape(f"{name}: {text}") for text in texts]
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"><title>{text}</title></circle>'
                for (x, y), text in zip(places, told, strict=True)
            ]
    legend = "".join(
        f'<span style="margin-right: 12px;"><span style="color: {color};">&#9632;</span> {escape(name)}</span>'
        for name, color in zip(series, cycle(COLORS))
    )
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img">{"".join(parts)}</svg>'
    return f'{picture}<div class="text-caption">{legend}</div>'


def _range(values):
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _line(start, end):
    ends = f'x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line {ends} stroke="currentColor" stroke-opacity="0.5"/>'


def _text(x, y, text, anchor):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="10" fill="currentColor">{escape(text)}</text>'
