"""The bar chart: server CPU per request at 64 connections, as SVG written by hand.

Its background is transparent; every colour keeps a contrast of at least 3 : 1 on white and on near-black alike.
"""

from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
LABELS = 262  # where the bars begin
VALUES = 70  # room for the figure after the longest bar
TOP = 64
ROW = 34
BAR = 20
BOTTOM = 34
TEXT = "#7a818a"
PLAIN = "#838f9b"
FLOOR = "#4f9496"
OURS = "#e8590c"
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Row:
    label: str
    value: float  # µs
    kind: str = ""  # "ours", "floor" or nothing


def draw(rows: list[Row], subtitle: str, footer: str) -> str:
    """The whole SVG, the rows in the order given."""
    height = TOP + ROW * len(rows) + BOTTOM
    longest = max((row.value for row in rows), default=1.0)
    described = "; ".join(f"{row.label}: {row.value:.1f} µs" for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" aria-labelledby="title description" font-family="{FONT}" font-size="14" fill="{TEXT}">',
        '<title id="title">Server CPU per request</title>',
        f'<desc id="description">{escape(described)}</desc>',
        '<text x="0" y="20" font-size="17" font-weight="600">Server CPU per request, µs (less is better)</text>',
        f'<text x="0" y="42" font-size="13">{escape(subtitle)}</text>',
    ]
    for number, row in enumerate(rows):
        parts.extend(_row(row, TOP + ROW * number, longest))
    parts.append(f'<text x="0" y="{height - 8}" font-size="11">{escape(footer)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _row(row: Row, top: int, longest: float) -> list[str]:
    colour = {"ours": OURS, "floor": FLOOR}.get(row.kind, PLAIN)
    strong = f' font-weight="700" fill="{OURS}"' if row.kind == "ours" else ""
    length = row.value / longest * (WIDTH - LABELS - VALUES)
    base = top + ROW / 2 + 5
    upper = top + (ROW - BAR) / 2
    return [
        f'<text x="{LABELS - 12}" y="{base:g}" text-anchor="end"{strong}>{escape(row.label)}</text>',
        f'<rect x="{LABELS}" y="{upper:g}" width="{length:.1f}" height="{BAR}" rx="3" fill="{colour}"/>',
        f'<text x="{LABELS + length + 8:.1f}" y="{base:g}"{strong}>{row.value:.1f}</text>',
    ]
