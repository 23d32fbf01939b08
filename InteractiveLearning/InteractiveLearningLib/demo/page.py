"""A self-contained page: text, tables and pictures in one file that opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from RefSegLib.durable import write_durably

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { border-top: 1px solid #8886; padding-top: 1.2rem; margin-top: 2.4rem; }
img { max-width: 100%; background: white; } figure { margin: 1rem 0; }
figcaption { color: #777; font-size: 0.9em; }
table { border-collapse: collapse; margin: 0.8rem 0; } th, td { padding: 0.25rem 0.8rem; text-align: left; }
th { border-bottom: 2px solid #8888; } td { border-bottom: 1px solid #8884; }
"""


class Page:
    """Collects content from top to bottom; every text is escaped."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str, level: int = 2) -> None:
        """A heading of level 2 or 3."""
        self._parts.append(f"<h{level}>{escape(text)}</h{level}>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def points(self, items: Sequence[str]) -> None:
        """A list."""
        self._parts.append("<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>")

    def picture(self, address: str, caption: str) -> None:
        """A picture given as a data address."""
        caption = escape(caption)
        self._parts.append(f'<figure><img src="{address}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; numbers are shown with three decimals."""
        head = "".join(f"<th>{escape(name)}</th>" for name in header)
        body = "".join("<tr>" + "".join(f"<td>{escape(_cell(v))}</td>" for v in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def write(self, file: Path) -> None:
        """Write the page, whole or not at all."""
        body = "\n".join(self._parts)
        text = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
        )
        write_durably(file, text.encode())


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
