"""The parts of a Grafana dashboard as plain JSON: variables, panels, rows, and their places.

Panels are placed from left to right on a grid of 24 columns, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]
Targets = Sequence[tuple[str, str]]
"""Queries with the legends of their series."""

GRID = 24
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED = "green", "#EAB839", "red"


def thresholds(*steps: float, falling: bool = False) -> Json:
    """One step: bad from there on. Two: a warning before. ``falling``: low values are bad."""
    low, high = (steps[0], steps[-1]) if len(steps) > 1 else (None, steps[0])
    marks: list[tuple[float | None, str]]
    if falling:
        marks = [(None, RED), *([(low, YELLOW)] if low is not None else []), (high, GREEN)]
    else:
        marks = [(None, GREEN), *([(low, YELLOW)] if low is not None else []), (high, RED)]
    return {"mode": "absolute", "steps": [{"value": at, "color": color} for at, color in marks]}


def _panel(
    kind: str, title: str, description: str, unit: str, targets: Targets, size: tuple[int, int]
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": size[0], "h": size[1], "x": 0, "y": 0},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "expr": " ".join(expr.split()),
                "legendFormat": legend,
                "datasource": SOURCE,
            }
            for number, (expr, legend) in enumerate(targets)
        ],
    }


def stat(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    marks: Json | None = None,
    decimals: int | None = None,
    link: str | None = None,
    w: int = 4,
    h: int = 4,
) -> Json:
    """One large number with its recent past; ``link``: the dashboard that tells more."""
    panel = _panel("stat", title, description, unit, [(expr, title)], (w, h))
    defaults = panel["fieldConfig"]["defaults"]
    defaults["thresholds"] = marks or {
        "mode": "absolute",
        "steps": [{"value": None, "color": "blue"}],
    }
    defaults["color"] = {"mode": "thresholds"}
    if decimals is not None:
        defaults["decimals"] = decimals
    panel["options"] = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "value",
    }
    if link is not None:
        panel["links"] = [
            {
                "title": "More",
                "url": f"/d/{link}?${{__url_time_range}}&${{__all_variables}}",
            }
        ]
    return panel


def lines(
    title: str,
    description: str,
    unit: str,
    targets: Targets,
    *,
    marks: Json | None = None,
    stack: bool = False,
    top: float | None = None,
    colors: Mapping[str, str] | None = None,
    w: int = 12,
    h: int = 8,
) -> Json:
    """Values over time; ``marks`` are drawn as lines, ``top`` ends the scale.

    ``colors``: of series, by their legends.
    """
    panel = _panel("timeseries", title, description, unit, targets, (w, h))
    defaults = panel["fieldConfig"]["defaults"]
    defaults["min"] = 0
    if top is not None:
        defaults["max"] = top
    defaults["custom"] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if marks is None else "dashed"},
    }
    if marks is not None:
        defaults["thresholds"] = marks
    panel["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
        }
        for name, color in (colors or {}).items()
    ]
    panel["options"] = {
        "legend": {"displayMode": "list", "placement": "bottom", "calcs": ["lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def heatmap(title: str, description: str, unit: str, expr: str, *, w: int = 12, h: int = 8) -> Json:
    """How many observations fell into each bucket of a histogram over time."""
    panel = _panel("heatmap", title, description, "short", [(expr, "{{le}}")], (w, h))
    panel["targets"][0]["format"] = "heatmap"
    panel["options"] = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "yAxis": {"unit": unit, "axisPlacement": "left"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "legend": {"show": True},
        "cellGap": 1,
    }
    return panel


def gauge(
    title: str,
    description: str,
    unit: str,
    targets: Targets,
    *,
    marks: Json,
    top: float = 1,
    w: int = 6,
    h: int = 6,
) -> Json:
    """How full something is."""
    panel = _panel("gauge", title, description, unit, targets, (w, h))
    panel["fieldConfig"]["defaults"] |= {"min": 0, "max": top, "thresholds": marks}
    panel["options"] = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
    }
    return panel


def table(
    title: str,
    description: str,
    unit: str,
    targets: Targets,
    *,
    hide: Sequence[str] = (),
    w: int = 24,
    h: int = 7,
) -> Json:
    """The present values of several queries, one line for each set of labels."""
    panel = _panel("table", title, description, unit, targets, (w, h))
    for target in panel["targets"]:
        target |= {"format": "table", "instant": True}
    names = {f"Value #{t['refId']}": t["legendFormat"] for t in panel["targets"]}
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(["Time", *hide], True),
                "renameByName": names,
            },
        },
    ]
    panel["options"] = {"showHeader": True, "cellHeight": "sm"}
    return panel


def variable(name: str, label: str, query: str) -> Json:
    """A choice of one, several or all values of a label."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
    }


def source_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "current": {},
        "options": [],
        "hide": 0,
    }


def placed(rows: Sequence[tuple[str, Sequence[Json]]]) -> list[Json]:
    """The panels of titled rows with their ids and places."""
    found: list[Json] = []
    y = 0

    def add(panel: Json) -> None:
        panel["id"] = len(found) + 1
        found.append(panel)

    for title, panels in rows:
        add(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": GRID, "h": 1},
            }
        )
        y += 1
        x = tallest = 0
        for panel in panels:
            place = panel["gridPos"]
            if x + place["w"] > GRID:
                x, y, tallest = 0, y + tallest, 0
            place["x"], place["y"] = x, y
            x += place["w"]
            tallest = max(tallest, place["h"])
            add(panel)
        y += tallest
    return found


def dashboard(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[Json],
    rows: Sequence[tuple[str, Sequence[Json]]],
) -> Json:
    """A whole dashboard, linked to all others with the tag natalog."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["natalog"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "title": "Natalog",
                "type": "dashboards",
                "tags": ["natalog"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "The other dashboards of Natalog",
                "url": "",
            }
        ],
        "annotations": {
            "list": [
                {
                    "name": "Starts",
                    "datasource": SOURCE,
                    "enable": True,
                    "iconColor": "blue",
                    "expr": 'changes(process_start_time_seconds{job=~"$job"}[1m]) > 0',
                    "titleFormat": "{{instance}} started",
                    "step": "60s",
                }
            ]
        },
        "templating": {"list": [source_variable(), *variables]},
        "panels": placed(rows),
    }
