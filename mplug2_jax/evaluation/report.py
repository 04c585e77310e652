"""What a run did, for a person (`report.html`) and for a program (`report.json`).

The page is one file: style inline, pictures as base64 JPEG, no script, nothing fetched.
"""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mplug2_jax.contracts import paths
from mplug2_jax.tasks.base import Example

_SHEET_HEIGHT = 112  # pixels of a frame on the page, about: small ones grow by a whole factor
_SHEET_COLUMNS = 8  # frames side by side before a new row
_INTERVALS = ("Intervals are those of other samples of what is counted first under a figure, each "
              "drawn with all of its examples; in retrieval it is drawn for the gallery, too.")


@dataclass
class Section:
    """A part of the page, such as "Captioning": its figures (name -> value) and its examples.

    groups: examples under a heading of their own, such as "best" and "worst", after `cards`.
    """

    title: str
    figures: dict[str, Any] = field(default_factory=dict)
    cards: list[Example] = field(default_factory=list)
    groups: dict[str, list[Example]] = field(default_factory=dict)


def write_report(path_dir: str | Path, report: Mapping, sections: Sequence[Section] = ()) -> Path:
    """Writes `report.json` and `report.html` into `path_dir` (made if missing); returns the latter.

    `report` holds, all but `title` optional:
    - `title`: str; `summary`: str, a sentence under it; `warning`: str, another that stands out.
    - `figures`: {name: value} or {name: {"value": v, "chance": c, "majority": m, "untrained": u}}
      with any of the baselines, and with "interval": (low, high) for the value's confidence
      interval; the headline table.
    - `units`: {name: {"media": 256, "questions": 1024}}, of a figure with an interval what was
      drawn for it, and how many; then its examples, if they are more.
    - `run`: {name: value}, the facts: config, seed, steps, examples/s, device, versions. Values may
      be mappings, which are shown as "name: value" lines.
    - anything else goes into the JSON only.

    `report.json` has all of `report` and each section's title and figures; keys are sorted, NumPy
    scalars and arrays become numbers and lists. Each file replaces the old one in one step, so a
    reader never sees half of one. ValueError naming the key, before anything is written, for a NaN
    or infinite number, or a value JSON cannot hold; ValueError for frames of a wrong shape or type.
    """
    if not isinstance(report.get("title"), str):
        raise ValueError("report needs a title: str")
    sections = list(sections)
    facts = {
        **report,
        "sections": [{"title": s.title, "figures": s.figures} for s in sections],
    }
    text = json.dumps(_plain(facts, "report"), indent=2, sort_keys=True, ensure_ascii=False)
    page = _page(report, sections)
    directory = paths.parse(path_dir)
    directory.mkdir(parents=True, exist_ok=True)
    paths.write(directory / "report.json", text + "\n")
    paths.write(directory / "report.html", page)
    return directory / "report.html"


def _plain(value: Any, key: str) -> Any:
    """`value` as JSON types; `key` is its path, for the error."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{key}: keys must be strings, got {name!r}")
        return {name: _plain(part, f"{key}.{name}") for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{key}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key} is {value}: a report holds finite numbers only")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{key}: {type(value).__name__} cannot be written as JSON")


def _page(report: Mapping, sections: Sequence[Section]) -> str:
    title = html.escape(report["title"])
    summary = (
        f'<p class="summary">{html.escape(report["summary"])}</p>' if "summary" in report else ""
    )
    if "warning" in report:
        summary += f'<p class="warning">{html.escape(report["warning"])}</p>'
    parts = [f"<header><h1>{title}</h1>{summary}</header>"]
    if report.get("figures"):
        parts.append(_headline(report["figures"], report.get("units", {})))
    if report.get("run"):
        parts.append(_facts(report["run"]))
    parts += [_section(section) for section in sections]
    body = "\n".join(parts)
    return _PAGE.format(title=title, style=_STYLE, body=body)


def _headline(figures: Mapping, units: Mapping[str, Mapping[str, int]]) -> str:
    """The table of figures, a column for each baseline that any figure gives."""
    rows = {
        name: entry if isinstance(entry, Mapping) else {"value": entry}
        for name, entry in figures.items()
    }
    for name, row in rows.items():
        if "value" not in row:
            raise ValueError(f"figures.{name}: expected value, interval and baselines, got "
                             f"{list(row)}")
    shown = sorted({name for row in rows.values() for name in row} - {"value", "interval"})
    ranges = any("interval" in row for row in rows.values())
    columns = ("figure", "this run", *["95 % interval"] * ranges, *shown)
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    lines = []
    for name, row in rows.items():
        cells = "".join(f"<td>{_number(row.get(column))}</td>" for column in shown)
        if ranges:
            ends = " to ".join(map(_number, row.get("interval", (None,))))
            cells = f'<td class="range">{ends}</td>{cells}'
        lines.append(
            f'<tr><th scope="row">{html.escape(name)}{_units(units.get(name, {}))}</th>'
            f'<td class="value">{_number(row["value"])}</td>{cells}</tr>'
        )
    return (
        '<section><h2>Results</h2><div class="scroll"><table class="figures">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        + (f'<p class="note">{_INTERVALS}</p>' if units else "") + "</section>"
    )


def _units(counts: Mapping[str, int]) -> str:
    words = ", ".join(f"{count:,} {html.escape(unit)}" for unit, count in counts.items())
    return f'<small class="units">{words}</small>' if words else ""


def _facts(run: Mapping) -> str:
    rows = []
    for name, value in run.items():
        if isinstance(value, Mapping):
            text = "<br>".join(f"{html.escape(k)}: {_number(v)}" for k, v in value.items())
        else:
            text = _number(value)
        rows.append(f"<div><dt>{html.escape(name)}</dt><dd>{text}</dd></div>")
    return f'<section><h2>Run</h2><dl class="facts">{"".join(rows)}</dl></section>'


def _section(section: Section) -> str:
    figures = "".join(
        f"<li>{html.escape(name)} <b>{_number(value)}</b></li>"
        for name, value in section.figures.items()
    )
    groups = "".join(
        f"<h3>{html.escape(name)}</h3>{_cards(cards)}" for name, cards in section.groups.items()
    )
    return (
        f"<section><h2>{html.escape(section.title)}</h2>"
        + (f'<ul class="chips">{figures}</ul>' if figures else "")
        + _cards(section.cards)
        + groups
        + "</section>"
    )


def _cards(cards: Sequence[Example]) -> str:
    return f'<div class="cards">{"".join(map(_card, cards))}</div>' if cards else ""


def _card(card: Example) -> str:
    mark = {True: ("right", "&#10003; correct"), False: ("wrong", "&#10007; wrong"), None: None}
    marked = mark[None if card.correct is None else bool(card.correct)]
    badge = f'<p class="badge {marked[0]}">{marked[1]}</p>' if marked else ""
    sheet = _sheet(card.frames, "sampled frames", _SHEET_HEIGHT)
    rows = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(text) or '<i>(empty)</i>'}</dd></div>"
        for label, text in card.rows
    )
    results = "".join(
        f'<li class="{"match" if match else ""}">{_sheet(frames, label, _SHEET_HEIGHT // 2)}'
        f"<span>{place}. {html.escape(label)}"
        f"{' <b>&#10003; match</b>' if match else ''}</span></li>"
        for place, (frames, label, match) in enumerate(card.thumbnails, 1)
    )
    return (
        f'<article class="card">{sheet}<div class="text">{badge}<dl>{rows}</dl></div>'
        + (f'<ol class="results">{results}</ol>' if results else "")
        + "</article>"
    )


def _sheet(frames: np.ndarray | None, label: str, height: int) -> str:
    """The frames, uint8 [T, H, W, 3], side by side as one embedded picture; "" without any."""
    if frames is None:
        return ""
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {frames.shape}")
    tiles = [_resize(frame, height) for frame in frames]
    tile_height, tile_width, _ = tiles[0].shape
    columns = min(len(tiles), _SHEET_COLUMNS)
    rows = math.ceil(len(tiles) / columns)
    # Two grey pixels between the frames; the last row may end early.
    sheet = np.full(
        (rows * (tile_height + 2) - 2, columns * (tile_width + 2) - 2, 3), 128, np.uint8
    )
    for index, tile in enumerate(tiles):
        top = index // columns * (tile_height + 2)
        left = index % columns * (tile_width + 2)
        sheet[top : top + tile_height, left : left + tile_width] = tile
    strip = Image.fromarray(sheet)
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=88, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img alt="{html.escape(label)}: {len(frames)} frame{"s" * (len(frames) > 1)}" '
        f'width="{strip.width}" height="{strip.height}" src="data:image/jpeg;base64,{data}">'
    )


def _resize(frame: np.ndarray, height: int) -> np.ndarray:
    """A frame, uint8 [H, W, 3], about `height` pixels high; small ones grow without smoothing."""
    if frame.shape[0] > height:
        width = max(1, round(frame.shape[1] * height / frame.shape[0]))
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
    # Enlarged here, not by the browser alone: JPEG would smear small frames.
    scale = max(1, round(height / frame.shape[0]))
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def _number(value: Any) -> str:
    """A value for reading: three decimals for usual sizes, a dash if there is none."""
    if value is None:
        return "&ndash;"
    if isinstance(value, float | np.floating):
        size = abs(float(value))
        if size >= 1000:
            return f"{value:,.0f}"
        return f"{value:.3f}" if size == 0 or size >= 0.001 else f"{value:.3g}"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    return html.escape(str(value))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --panel: #ffffff; --ink: #1b1f24; --soft: #5b6470; --line: #dfe3e8;
  --accent: #1f5fbf; --right: #176b37; --right-bg: #e3f4e8; --wrong: #a3251c; --wrong-bg: #fbe7e5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --panel: #1d2126; --ink: #e7eaee; --soft: #9aa4b0; --line: #323840;
    --accent: #86b4ff; --right: #7fd79a; --right-bg: #17331f; --wrong: #ff9d94; --wrong-bg: #3d1c1a;
  }
}
* { box-sizing: border-box; }
small.units { display: block; font-weight: normal; color: var(--soft); }
.note { color: var(--soft); }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { margin: 0; font-size: 28px; line-height: 1.2; }
h2 { margin: 40px 0 12px; font-size: 19px; }
h3 { margin: 22px 0 10px; color: var(--soft); font-size: 14px; font-weight: 600; }
.summary { margin: 8px 0 0; color: var(--soft); max-width: 72ch; }
.warning { margin: 8px 0 0; color: var(--wrong); font-weight: 600; max-width: 72ch; }
dl, ul, ol { margin: 0; padding: 0; list-style: none; }
dd { margin: 0; overflow-wrap: anywhere; }
dt { color: var(--soft); font-size: 12px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; background: var(--panel); border: 1px solid var(--line); }
th, td { padding: 8px 18px; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th:first-child { text-align: left; }
thead th { color: var(--soft); font-size: 12px; font-weight: 500; }
tbody th { font-weight: 500; }
tbody tr:last-child > * { border-bottom: 0; }
td.value { color: var(--accent); font-size: 17px; font-weight: 650; }
td.range { color: var(--soft); font-size: 13px; }
.facts { display: grid; gap: 12px 24px;
  grid-template-columns: repeat(auto-fill, minmax(190px, 1fr));
  padding: 16px 18px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
.chips { display: flex; flex-wrap: wrap; gap: 8px; margin-bottom: 14px; }
.chips li { padding: 2px 10px; border: 1px solid var(--line); border-radius: 99px;
  background: var(--panel); color: var(--soft); font-size: 13px; }
.chips b { color: var(--ink); font-variant-numeric: tabular-nums; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr));
  gap: 16px; align-items: start; }
.card { padding: 14px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  display: flex; flex-wrap: wrap; gap: 14px; }
.card > img { flex: 0 1 auto; align-self: flex-start; }
.card .text { flex: 1 1 180px; min-width: 0; }
.text dl > div { display: grid; grid-template-columns: 92px 1fr; gap: 10px;
  align-items: baseline; }
.text dl > div + div { margin-top: 4px; }
img { max-width: 100%; height: auto; border-radius: 4px; display: block;
  image-rendering: pixelated; }
.badge { display: inline-block; margin: 0 0 8px; padding: 1px 9px; border-radius: 99px;
  font-size: 12px; font-weight: 600; }
.badge.right { color: var(--right); background: var(--right-bg); }
.badge.wrong { color: var(--wrong); background: var(--wrong-bg); }
.results { flex: 1 1 100%; display: grid; gap: 8px;
  grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); }
.results li { padding: 8px; border: 1px solid var(--line); border-radius: 6px; }
.results li.match { border: 2px solid var(--right); padding: 7px; }
.results span { display: block; margin-top: 6px; color: var(--soft); font-size: 12px;
  overflow-wrap: anywhere; }
.results b { color: var(--right); }
@media print { body { background: none; } .card { break-inside: avoid; } }
"""
