"""What `benchmarks/recipes.json` and `benchmarks/scale.json` say, as tables, and a plot as SVG."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import scale

ROOT = Path(__file__).parents[1]
# Of the configs those that differ most, for the short table.
SHORT = ("msrvtt_caption.py", "msrvtt_retrieval.py", "coco_caption.py", "vqav2_qa.py",
         "kinetics_classification.py:kinetics400", "glue_classification.py:cola",
         "pretrain.py:image", "pretrain.py:joint")
Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]
Line = tuple[str, list[tuple[float, float]]]
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 400, 70, 50  # of the plot, pixels


def cell(recipe: dict[str, Any]) -> str:
    """A recipe in a table."""
    if "why_not" in recipe:
        return "-"
    parts = "" if recipe["accumulation"] == 1 else f" / {recipe['accumulation']}"
    about = {"estimate": "~", "plans": "="}.get(recipe["by"], "")
    return f"{recipe['mesh']} {recipe['remat']}{parts}: {about}{recipe['peak_gib']:.1f}"


def recipes_by(size: str) -> list[dict[str, Any]]:
    """The programs of a size, each with its configs and its recipes by hardware."""
    found = json.loads((ROOT / "benchmarks" / "recipes.json").read_text())["programs"]
    return [entry for entry in found.values() if entry["size"] == size]


def recipe_table(table: Table, entries: list[dict[str, Any]]) -> str:
    """A row a program."""
    hardware = list(entries[0]["recipes"])
    return table(("config", *map(code, hardware)), (
        ["<br>".join(map(code, entry["configs"])),
         *(cell(entry["recipes"][one]) for one in hardware)] for entry in entries))


def short(table: Table) -> str:
    """The recipes of `large` that differ most."""
    found = recipes_by("large")
    return recipe_table(table, [entry | {"configs": [name]} for name in SHORT
                                for entry in found if name in entry["configs"]])


def page(table: Table, prose: Callable[[str], str], note: str) -> str:
    """All recipes."""
    text = prose(
        "How each config fits named hardware, by `make plan-all` (benchmarks/recipes.json): the "
        "mesh, data x fsdp x tensor; the remat of all modules; behind a slash the micro-batches, "
        "where there are several; and the peak of a device in GiB, at most 92 % of a TPU's memory "
        "and 85 % of a GPU's. `~` stands before what shapes say, and no compiler yet; `=` before "
        "what `make plans` compiled of the config as it is, nothing lighter tried. The batches "
        "and learning rates are the config's. A dash stands where nothing fits, mostly for a batch "
        "is too small for so many devices. `python -m mplug2_jax.planning suggest` finds the same "
        "for a config of one's own, and prints the flags ([scaling.md](../scaling.md#recipes)).")
    parts = ["# Hardware", note, text]
    for size in ("large", "base"):
        parts += [f"## {size}", recipe_table(table, recipes_by(size))]
    return "\n\n".join(parts) + "\n"


def steps() -> dict[str, dict[str, Any]]:
    """What was compiled of `benchmarks.scale`, by topology and batch."""
    file = ROOT / scale.OUT
    return json.loads(file.read_text())["steps"] if file.is_file() else {}


def scale_table(table: Table) -> str:
    """What a chip holds and sends, and what bounds the step."""
    head = ("chips", "images a step", "by", "peak, GiB", "sent along data, MiB", "fsdp",
            "all axes", "to other slices", "of it for the contrastive loss",
            "at least, s: compute", "memory", "ICI", "DCN", "MFU at most", "chip-hours a million")
    found = sorted(steps().items(), key=lambda one: (
        one[0].partition("v")[2][:2], one[1]["chips"], one[1]["batch"]))

    def sent(one: dict[str, Any], axis: str) -> str:
        return f"{one['axes_mib'].get(axis, 0):,.0f}" if "axes_mib" in one else "-"

    def seconds(one: dict[str, Any], what: str) -> str:
        return f"{one['seconds'][what]:.3f}" if what in one["seconds"] else "-"

    return table(head, (
        [f"{name.split()[0]}", f"{one['batch']:,}", one["by"],
         f"{one['peak_gib']:.1f} of {one['of_gib']:g}",
         *(sent(one, axis) for axis in ("data", "fsdp", "data+fsdp")), f"{one['dcn_mib']:,.1f}",
         f"{one['contrastive_dcn_mib']:,.2f}",
         *(seconds(one, what) for what in ("compute", "memory", "interconnect", "dcn")),
         f"{one['mfu_at_most']:.0%}", f"{scale.cost(one):.2f}"] for name, one in found))


def plot() -> str:
    """Cost against chips, as SVG: what was compiled as points, what follows from it dashed."""
    lines: list[Line] = []
    dashed: list[Line] = []
    for chip in scale.SLICE:
        known = [one for name, one in steps().items() if chip in name]
        for name, chosen in ((f"{chip}, {scale.WHOLE:,} images a step",
                              [one for one in known if one["batch"] == scale.WHOLE]),
                             (f"{chip}, {scale.A_CHIP} images a chip",
                              [one for one in known
                               if one["batch"] == scale.A_CHIP * one["chips"]])):
            lines.append((name, sorted((one["chips"], scale.cost(one)) for one in chosen)))
        dashed.append((chip, scale.continued(chip, known)))
    return svg(lines, dashed)


def svg(lines: list[Line], dashed: list[Line]) -> str:
    """Lines over logarithmic chips and cost; the first half of `lines` has the color of each."""
    points = [point for _, line in (*lines, *dashed) for point in line]
    points = points or [(256, 1.0)]
    low_x, high_x = (math.log2(f(x for x, _ in points)) for f in (min, max))
    high_y = 1.1 * max(y for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        share = (math.log2(x) - low_x) / (high_x - low_x or 1)
        return (round(LEFT + share * (WIDTH - LEFT - 20), 1),
                round(HEIGHT - BOTTOM - y / high_y * (HEIGHT - BOTTOM - 20), 1))

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for power in range(round(low_x), round(high_x) + 1):
        x, _ = at(2 ** power, 0)
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                     f"{2 ** power:,}</text>")
    step = 10 ** math.floor(math.log10(high_y))
    step = step if high_y / step >= 4 else step / 4
    for number in range(int(high_y / step) + 1):
        _, y = at(2 ** low_x, number * step)
        parts += [f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y}" y2="{y}" stroke="#ddd"/>',
                  f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{number * step:g}</text>']
    for number, (name, line) in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line))
        parts += [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>',
                  *(f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>'
                    for x, y in (at(*point) for point in line)),
                  f'<text x="{LEFT + 12}" y="{34 + 16 * number}" fill="{color}">{name}</text>']
    for number, (_, line) in enumerate(dashed):
        path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[2 * number]}" '
                     'stroke-dasharray="4 4"/>')
    parts += [f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">chips</text>',
              f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
              "chip-hours a million images, at least</text>", "</svg>"]
    return "\n".join(parts) + "\n"


def code(word: str) -> str:
    """In the type of code."""
    return f"`{word}`"
