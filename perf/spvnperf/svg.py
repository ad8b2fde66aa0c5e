"""Two kinds of chart as plain SVG text: horizontal bars and lines. Black on white, so that they read in any viewer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

FONT = "font-family='Helvetica, Arial, sans-serif'"
GRID = "#cccccc"
FAINT_GRID = "#eeeeee"


@dataclass(frozen=True)
class Bar:
    """A bar; note is printed after its value; faint ones are not records."""

    label: str
    value: float
    color: str
    note: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Line:
    label: str
    points: Sequence[tuple[float, float]]
    color: str


def text(x: float, y: float, content: str, *, size: int = 12, anchor: str = "start", extra: str = "") -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}'"
    return f"<text {place} {FONT} {extra}>{escape(content)}</text>"


def latency(micros: float) -> str:
    """A time for people: 100 us, 10 ms, 1 s."""
    return f"{micros:g} us" if micros < 1e3 else f"{micros / 1e3:g} ms" if micros < 1e6 else f"{micros / 1e6:g} s"


def document(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'"
            f" role='img' aria-label='{escape(title, quote=True)}'>",
            f"<rect width='{width}' height='{height}' fill='white'/>",
            text(16, 24, title, size=15, extra="font-weight='bold'"),
            *parts,
            "</svg>\n",
        ]
    )


def bars(title: str, panels: Sequence[tuple[str, str, Sequence[Bar]]]) -> str:
    """Panels side by side, each (heading, number format, bars)."""
    panel_width, left, row = 440, 104, 24
    height = 64 + row * max((len(panel) for _, _, panel in panels), default=0) + 12
    parts = []
    for number, (heading, form, panel) in enumerate(panels):
        x0 = number * panel_width
        parts.append(text(x0 + 16, 48, heading, extra="fill='#444444'"))
        longest = max((bar.value for bar in panel), default=0) or 1
        room = panel_width - left - 110
        for index, bar in enumerate(panel):
            y = 60 + index * row
            width = room * bar.value / longest
            opacity = 0.35 if bar.faint else 1
            parts.append(text(x0 + left - 8, y + 14, bar.label, anchor="end"))
            parts.append(
                f"<rect x='{x0 + left}' y='{y}' width='{max(width, 1):.1f}' height='{row - 6}'"
                f" fill='{bar.color}' opacity='{opacity}'/>"
            )
            parts.append(text(x0 + left + width + 6, y + 14, f"{form.format(bar.value)}{bar.note}"))
    return document(panel_width * len(panels), height, title, parts)


def lines(
    title: str,
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y_text: Callable[[float], str] = "{:g}".format,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    log_x: bool = False,
) -> str:
    """Lines on a logarithmic y axis: latencies differ by factors. Points at or under zero are left out."""
    width, height, left, top, right, bottom = 760, 400, 76, 44, 130, 48
    points = [(x, y) for line in series for x, y in line.points if y > 0 and (x > 0 or not log_x)]
    if not points:
        return document(width, height, title, [text(left, 100, "nothing was measured")])

    def scale_x(x: float) -> float:
        return math.log10(x) if log_x else x

    x_low, x_high = min(scale_x(x) for x, _ in points), max(scale_x(x) for x, _ in points)
    y_low = math.floor(math.log10(min(y for _, y in points)))
    y_high = max(math.ceil(math.log10(max(y for _, y in points))), y_low + 1)

    def px(x: float) -> float:
        return left + (scale_x(x) - x_low) / ((x_high - x_low) or 1) * (width - left - right)

    def py(y: float) -> float:
        return height - bottom - (math.log10(y) - y_low) / (y_high - y_low) * (height - top - bottom)

    parts = []
    for exponent in range(y_low, y_high + 1):
        for minor in (2, 5) if exponent < y_high else ():
            y = py(minor * 10.0**exponent)
            parts.append(f"<line x1='{left}' x2='{width - right}' y1='{y:.1f}' y2='{y:.1f}' stroke='{FAINT_GRID}'/>")
        y = py(10.0**exponent)
        parts.append(f"<line x1='{left}' x2='{width - right}' y1='{y:.1f}' y2='{y:.1f}' stroke='{GRID}'/>")
        parts.append(text(left - 8, y + 4, y_text(10.0**exponent), anchor="end"))
    for x, label in x_ticks if x_ticks is not None else ticks(points):
        parts.append(text(px(x), height - bottom + 18, label, anchor="middle"))
    parts.append(text((left + width - right) / 2, height - 10, x_label, anchor="middle"))
    middle = (top + height - bottom) / 2
    parts.append(text(18, middle, y_label, anchor="middle", extra=f"transform='rotate(-90 18 {middle:.0f})'"))
    for number, line in enumerate(series):
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line.points if y > 0 and (x > 0 or not log_x))
        parts.append(f"<polyline points='{path}' fill='none' stroke='{line.color}' stroke-width='2'/>")
        y = top + 14 + number * 20
        parts.append(f"<rect x='{width - right + 12}' y='{y - 9}' width='14' height='4' fill='{line.color}'/>")
        parts.append(text(width - right + 32, y - 2, line.label))
    return document(width, height, title, parts)


def ticks(points: Sequence[tuple[float, float]]) -> list[tuple[float, str]]:
    """Six round values over the points' range."""
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    step = 10 ** math.floor(math.log10((high - low) or 1))
    while (high - low) / step > 6:
        step *= 2
    first = math.ceil(low / step) * step
    return [(first + i * step, f"{first + i * step:g}") for i in range(int((high - first) / step) + 1)]
