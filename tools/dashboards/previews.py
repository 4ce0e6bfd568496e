"""Draws each dashboard from a measured load: ``python tools/dashboards/previews.py [SECONDS]``.

Grafana draws the same panels from the same queries in its own way; these pictures show what there
is to see.  Needs prometheus and matplotlib, and the given time (180 seconds unless told).
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lab
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Wedge
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator
from PIL import Image

TARGET = lab.ROOT / "docs" / "images"
UNIT_W, UNIT_H = 70, 36
"""Pixels of a cell of the grid of 24 columns."""
DPI = 100
STEP_S = 2.0
LEGEND_LINES = 3
BACKGROUND, PANEL, FRAME = "#111217", "#181b1f", "#2b2f36"
TEXT, FAINT = "#d5d7db", "#8b8f98"
COLORS = {
    "green": "#73bf69",
    "#EAB839": "#eab839",
    "red": "#f2495c",
    "blue": "#5794f2",
    "orange": "#ff780a",
    "purple": "#b877d9",
}
LINES = (
    *("#73bf69", "#eab839", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#37872d", "#8ab8ff"),
    *("#fade2a", "#c4162a", "#8f3bb8", "#96d98d"),
)
HEAT = LinearSegmentedColormap.from_list("heat", [PANEL, "#7a3300", "#ff780a", "#ffe0b0"])
Series = list[tuple[str, list[float], list[float]]]
"""Legend, instants and values."""


# --- numbers -----------------------------------------------------------------------------------


def scaled(value: float, steps: list[tuple[float, str]]) -> str:
    for size, name in steps:
        if abs(value) >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}{steps[-1][1] if steps[-1][0] == 1 else ''}"


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A number with its unit, as Grafana would write it."""
    if math.isnan(value):
        return "–"
    if decimals is not None and unit in ("percentunit", "short") and abs(value) < 1000:
        return f"{100 * value:.{decimals}f} %" if unit != "short" else f"{value:.{decimals}f}"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        if value == 0:
            return "0 s"
        if abs(value) >= 120:
            return f"{value / 60:.3g} min"
        return scaled(value, [(1, " s"), (1e-3, " ms"), (1e-6, " µs")])
    if unit in ("bytes", "Bps"):
        end = "B/s" if unit == "Bps" else "B"
        sizes = [(2.0**30, f" Gi{end}"), (2.0**20, f" Mi{end}"), (1024, f" Ki{end}")]
        return scaled(value, [*sizes, (1, f" {end}")]) if value else f"0 {end}"
    text = scaled(value, [(1e9, " Bil"), (1e6, " Mil"), (1e3, " K"), (1, "")]) if value else "0"
    return text + {"ops": "/s", "reqps": "/s"}.get(unit, "")


# --- panels ------------------------------------------------------------------------------------


def legend_of(target: Any, metric: dict[str, str]) -> str:
    text = str(target["legendFormat"])
    for label, value in metric.items():
        text = text.replace(f"{{{{{label}}}}}", value)
    return text


class Drawing:
    """Draws the panels of one dashboard on a figure."""

    def __init__(self, dashboard: Any, run: lab.Lab, start: float, end: float) -> None:
        self.dashboard = dashboard
        self.run = run
        self.start = start
        self.end = end

    def series(self, panel: Any) -> Series:
        found: Series = []
        for target in panel["targets"]:
            query = lab.substituted(target["expr"], self.dashboard)
            for one in self.run.over(query, self.start, self.end, STEP_S):
                values = [float(value) for _, value in one["values"]]
                times = [float(at) for at, _ in one["values"]]
                found.append((self.named(legend_of(target, one["metric"])), times, values))
        return found

    def named(self, text: str) -> str:
        """Processes have names of hosts elsewhere; here they differ by their ports."""
        for address, name in zip(self.run.metrics, ("natalog-1", "natalog-2"), strict=True):
            text = text.replace(address, name)
        return text

    def stat(self, axes: Axes, panel: Any) -> None:
        found = self.series(panel)
        defaults = panel["fieldConfig"]["defaults"]
        if not found:
            return
        _, times, values = found[0]
        color = mark_of(values[-1], defaults["thresholds"]["steps"])
        finite = [0.0 if math.isnan(value) else value for value in values]
        top = max(finite) or 1.0
        axes.fill_between(times, finite, color=color, alpha=0.18, linewidth=0)
        axes.plot(times, finite, color=color, linewidth=1, alpha=0.7)
        axes.set_ylim(0, top * 2.6)
        axes.set_xlim(self.start, self.end)
        axes.axis("off")
        axes.text(
            *(0.5, 0.56, shown(values[-1], defaults["unit"], defaults.get("decimals"))),
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=20,
            fontweight="bold",
            color=color,
        )

    def timeseries(self, axes: Axes, panel: Any) -> None:
        found = self.series(panel)
        defaults = panel["fieldConfig"]["defaults"]
        custom = defaults["custom"]
        unit = defaults["unit"]
        colors = colors_of(panel, [name for name, _, _ in found])
        if custom["stacking"]["mode"] == "normal" and found:
            grid = sorted({at for _, times, _ in found for at in times})
            rows = []
            for _, times, values in found:
                known = dict(zip(times, values, strict=True))
                rows.append(
                    [0.0 if math.isnan(known.get(at, 0.0)) else known.get(at, 0.0) for at in grid]
                )
            axes.stackplot(grid, rows, colors=colors, alpha=0.45, linewidth=0)
            total = [0.0] * len(grid)
            for row, color in zip(rows, colors, strict=True):
                total = [a + b for a, b in zip(total, row, strict=True)]
                axes.plot(grid, total, color=color, linewidth=1)
            highest = max(total, default=1.0)
        else:
            highest = 0.0
            for (_, times, values), color in zip(found, colors, strict=True):
                axes.plot(times, values, color=color, linewidth=1.2)
                if len(found) <= 3:
                    axes.fill_between(times, values, color=color, alpha=0.08, linewidth=0)
                highest = max([highest, *(value for value in values if not math.isnan(value))])
        if custom["thresholdsStyle"]["mode"] != "off":
            for step in defaults["thresholds"]["steps"]:
                if step["value"] is not None and step["value"] <= highest * 4:
                    color = COLORS[step["color"]]
                    axes.axhline(step["value"], color=color, linewidth=1, linestyle="--", alpha=0.7)
                    highest = max(highest, step["value"])
        top = defaults.get("max")
        axes.set_ylim(0, top * 1.02 if top is not None else (highest or 1.0) * 1.12)
        self.scales(axes, unit)
        self.legend(axes, found, colors, unit)

    def heatmap(self, axes: Axes, panel: Any) -> None:
        target = panel["targets"][0]
        found = self.run.over(
            lab.substituted(target["expr"], self.dashboard), self.start, self.end, STEP_S
        )
        unit = panel["options"]["yAxis"]["unit"]
        found.sort(key=lambda one: float(one["metric"]["le"]))
        edges = [float(one["metric"]["le"]) for one in found]
        grid = sorted({float(at) for one in found for at, _ in one["values"]})
        rows, before = [], [0.0] * len(grid)
        for one in found:
            known = {float(at): float(value) for at, value in one["values"]}
            row = [known.get(at, 0.0) for at in grid]
            rows.append([a - b for a, b in zip(row, before, strict=True)])
            before = row
        used = [spot for spot, row in enumerate(rows) if max(row, default=0) > 0.05]
        low, high = (max(0, used[0] - 1), used[-1] + 1) if used else (0, len(rows) - 1)
        axes.imshow(
            rows[low : high + 1],
            aspect="auto",
            origin="lower",
            cmap=HEAT,
            interpolation="nearest",
            extent=(self.start, self.end, 0, high + 1 - low),
        )
        names = [("∞" if math.isinf(edge) else shown(edge, unit)) for edge in edges[low : high + 1]]
        self.scales(axes, unit)
        axes.grid(False)
        spots = list(range(0, len(names), 1 + len(names) // 9))
        axes.set_yticks([spot + 1 for spot in spots], [names[spot] for spot in spots])
        axes.set_ylim(0, len(names))

    def gauge(self, axes: Axes, panel: Any) -> None:
        found = self.series(panel)
        defaults = panel["fieldConfig"]["defaults"]
        value = found[0][2][-1] if found else math.nan
        steps = defaults["thresholds"]["steps"]
        color = mark_of(value, steps)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.set_xlim(-1.15, 1.15)
        axes.set_ylim(-0.35, 1.15)

        def arc(low: float, high: float, radius: float, width: float, tint: str) -> None:
            axes.add_patch(
                Wedge((0, 0), radius, 180 - 180 * high, 180 - 180 * low, width=width, color=tint)
            )

        marks = [0.0, *(step["value"] for step in steps[1:]), defaults["max"]]
        for step, low, high in zip(steps, marks, marks[1:], strict=False):
            arc(low, high, 1.1, 0.05, COLORS[step["color"]])
        arc(0, 1, 1.0, 0.3, FRAME)
        arc(0, max(0.004, min(1.0, value)), 1.0, 0.3, color)
        axes.text(
            *(0, 0.12, shown(value, defaults["unit"])),
            ha="center",
            fontsize=18,
            fontweight="bold",
            color=color,
        )
        axes.text(0, -0.25, found[0][0] if found else "", ha="center", fontsize=8, color=FAINT)

    def table(self, axes: Axes, panel: Any) -> None:
        lines: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        hidden = set(panel["transformations"][1]["options"]["excludeByName"])
        for target in panel["targets"]:
            query = lab.substituted(target["expr"], self.dashboard)
            for one in self.run.now(query):
                labels = {k: v for k, v in one["metric"].items() if k not in hidden}
                line = lines.setdefault((("instance", labels["instance"]),), {})
                line |= {key: self.named(value) for key, value in labels.items()}
                line[target["legendFormat"]] = shown(float(one["value"][1]), "short")
        columns = list(dict.fromkeys(key for line in lines.values() for key in line))
        axes.axis("off")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        for spot, column in enumerate(columns):
            x = 0.02 + spot / len(columns)
            axes.text(x, 0.9, column, fontsize=9, color="#6e9fff", fontweight="bold")
            for row, line in enumerate(sorted(lines.values(), key=lambda line: line["instance"])):
                axes.text(x, 0.74 - 0.14 * row, line.get(column, ""), fontsize=9, color=TEXT)

    # --- scales and legends ------------------------------------------------------------------

    def scales(self, axes: Axes, unit: str) -> None:
        axes.set_xlim(self.start, self.end)
        axes.grid(True, color=FRAME, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=FAINT, labelsize=7.5, length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.yaxis.set_major_locator(ticks(unit))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(width_of(axes) // 110)), prune="both"))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: clock(at)))

    def legend(self, axes: Axes, found: Series, colors: list[str], unit: str) -> None:
        names = [f"{name}  {shown(values[-1], unit)}" for name, _, values in found]
        if names:
            longest = 30 + 5.3 * max(map(len, names))
            columns = min(4, max(1, int(width_of(axes) // longest)))
            most = columns * LEGEND_LINES
            axes.legend(
                [plt.Line2D([], [], color=color, linewidth=3) for color in colors[:most]],
                names[:most],
                loc="upper left",
                bbox_to_anchor=(-0.02, -0.1),
                ncols=columns,
                fontsize=7.2,
                frameon=False,
                labelcolor=TEXT,
                handlelength=1.1,
                columnspacing=1.2,
                labelspacing=0.25,
            )


def width_of(axes: Axes) -> float:
    """In pixels."""
    return float(axes.get_window_extent().width)


def colors_of(panel: Any, names: list[str]) -> list[str]:
    """The color of each series: its own, or the next one of the palette."""
    fixed = {
        one["matcher"]["options"]: COLORS[one["properties"][0]["value"]["fixedColor"]]
        for one in panel["fieldConfig"]["overrides"]
    }
    return [fixed.get(name, LINES[spot % len(LINES)]) for spot, name in enumerate(names)]


def ticks(unit: str) -> Locator:
    """Round numbers; of bytes, round in the binary sense."""
    if unit not in ("bytes", "Bps"):
        return MaxNLocator(5)
    return MaxNLocator(5, steps=[1, 1.024, 1.28, 2.048, 2.56, 4.096, 5.12, 8.192, 10])


def clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def mark_of(value: float, steps: list[Any]) -> str:
    color = steps[0]["color"]
    for step in steps[1:]:
        if value >= step["value"]:
            color = step["color"]
    return COLORS[color]


# --- the picture -------------------------------------------------------------------------------


def draw(dashboard: Any, run: lab.Lab, start: float, end: float, path: Path) -> None:
    """Draw one dashboard into a PNG file."""
    drawing = Drawing(dashboard, run, start, end)
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    head = 78
    width, height = 24 * UNIT_W + 24, rows * UNIT_H + head + 14
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)

    def box(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return x / width, 1 - (y + h) / height, w / width, h / height

    title(figure, dashboard, width, height)
    drawers: dict[str, Callable[[Axes, Any], None]] = {
        "stat": drawing.stat,
        "timeseries": drawing.timeseries,
        "heatmap": drawing.heatmap,
        "gauge": drawing.gauge,
        "table": drawing.table,
    }
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y = 12 + place["x"] * UNIT_W, head + place["y"] * UNIT_H
        w, h = place["w"] * UNIT_W, place["h"] * UNIT_H
        if panel["type"] == "row":
            figure.text(
                *((x + 6) / width, 1 - (y + 0.68 * h) / height, "▾  " + panel["title"]),
                fontsize=12,
                color=TEXT,
                fontweight="bold",
            )
            continue
        frame = figure.add_axes(box(x + 3, y + 3, w - 6, h - 6), facecolor=PANEL)
        frame.set_xticks([])
        frame.set_yticks([])
        for side in frame.spines.values():
            side.set_color(FRAME)
        figure.text(
            *((x + 13) / width, 1 - (y + 22) / height, panel["title"]),
            fontsize=9.5,
            color=TEXT,
        )
        plain = panel["type"] in ("stat", "gauge", "table")
        left, right, top, bottom = (10, 10, 28, 8) if plain else (68, 14, 32, 66)
        axes = figure.add_axes(
            box(x + left, y + top, w - left - right, h - top - bottom), facecolor=PANEL
        )
        drawers[panel["type"]](axes, panel)
    figure.savefig(path, dpi=DPI, facecolor=BACKGROUND)
    plt.close(figure)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def title(figure: Figure, dashboard: Any, width: float, height: float) -> None:
    figure.text(18 / width, 1 - 34 / height, dashboard["title"], fontsize=17, color=TEXT)
    words = textwrap.shorten(dashboard["description"], 120)
    figure.text(18 / width, 1 - 60 / height, words, fontsize=10, color=FAINT)
    figure.text(
        *(1 - 18 / width, 1 - 34 / height),
        "PREVIEW, drawn from the panels' own queries; not a screenshot of Grafana",
        fontsize=10,
        color="#eab839",
        ha="right",
    )
    choices = "   ".join(f"{one['label']}: All" for one in dashboard["templating"]["list"][1:])
    figure.text(1 - 18 / width, 1 - 60 / height, choices, fontsize=9, color=FAINT, ha="right")


def main(arguments: list[str]) -> int:
    seconds = float(arguments[0]) if arguments else 180.0
    TARGET.mkdir(exist_ok=True)
    plt.rcParams["font.family"] = "DejaVu Sans"
    with tempfile.TemporaryDirectory() as directory, lab.running(Path(directory)) as run:
        began = time.time()
        asyncio.run(lab.load(run.url, seconds, pace_s=0.05))
        end = time.time()
        for name, dashboard in lab.dashboards().items():
            short = Path(name).stem.removeprefix("natalog-")
            draw(dashboard, run, began + 8, end, TARGET / f"dashboard-{short}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
