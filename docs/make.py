"""Writes the pages of `docs/reference/`: tasks, configs, keys, recipes, parameters, hardware.

    python -m docs.make [--out=DIR]

They come from the code, and from what `benchmarks/` keeps; tables of other pages do, too, between
two comments that name them. `make docs` runs it; a test fails where a page is not what it writes.
"""

import argparse
import dataclasses
import importlib
import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import common, demo_joint, demo_tasks, keys, pretrain, zero_shot
from docs import hardware, parameters, recipes
from mplug2_jax import tasks
from mplug2_jax.contracts import options
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS, Source, Stream
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.tasks.base import Figure

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Written by `make docs` from the code; change that, not this. -->"
MISSING = "must be given"
# What is behind a config's colon, where it is none of its `DATASETS` and `VARIANTS`.
CHOICES = {"demo": ("start", "joint"), "demo_joint": demo_joint.ARMS,
           "demo_tasks": demo_tasks.FAMILIES,
           "pretrain": tuple(pretrain.STREAMS), "zero_shot": zero_shot.NAMES}
SECTIONS = (  # of a config, in front of its keys
    ("", common.Run), ("model.", ModelConfig), ("data.", common.Data), ("data.streams.*.", Stream),
    ("data.streams.*.split.*.", Source), ("mesh.", common.Mesh),
    ("optimizer.", common.Optimizer), ("guard.", common.Guard), ("evals.*.", common.Evaluation))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    lines = [list(head), ["---"] * len(list(head)), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
                     for line in lines)


def prose(text: str) -> str:
    """A paragraph."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def code(words: Iterable[Any]) -> str:
    """Words in the type of code, "-" for none."""
    return ", ".join(f"`{word}`" for word in words) or "-"


def defaults(cls: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Path and default of every key below `prefix`."""
    for field in dataclasses.fields(cls):
        if field.default is field.default_factory is dataclasses.MISSING:
            yield f"{prefix}{field.name}", MISSING
            continue
        value = (field.default_factory() if field.default is dataclasses.MISSING
                 else field.default)
        if dataclasses.is_dataclass(value):
            yield from defaults(type(value), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", f"`{value!r}`"


def key_table(known: dict[str, str], said: dict[str, str]) -> str:
    """Keys by path with their defaults, and what each is; but for those that tasks give."""
    given = {f"data.streams.*.{key}" for key in GIVEN_BY_TASKS}
    return table(("key", "default", "what it is"),
                 ((f"`{path}`", default, said[path]) for path, default in known.items()
                  if path not in given))


def configs() -> Iterator[tuple[str, ConfigDict]]:
    """Every config of `configs/`, by what `--config` takes behind that folder."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        module = importlib.import_module(f"configs.{path.stem}")
        if not hasattr(module, "get_config"):
            continue
        choices = CHOICES.get(path.stem) or getattr(module, "DATASETS", ("",))
        for choice in (*choices, *getattr(module, "VARIANTS", ())):
            yield f"{path.name}{':' * bool(choice)}{choice}", module.get_config(
                *filter(None, [choice]))


def composition(section: Any) -> str:
    """The modules and heads of a task's section; "" where its options leave them open."""
    try:
        task, found = tasks.read(section)
        modules, heads = task.composition(found)
    except (ConfigError, FileNotFoundError):  # no classes, or the file of them is not there
        return ""
    return ", ".join([*sorted(modules, key=MODULES.index), *heads])


def span(figure: Figure) -> str:
    """A figure's range, and which end is better."""
    better = {"": "", "higher": ", higher is better", "lower": ", lower is better"}
    return f"{figure.low:g} to {figure.high:g}{better[figure.better]}".replace("inf", "∞")


def figure_rows(task: type[tasks.Task]) -> Iterator[tuple[str, ...]]:
    """A row a figure; those of summaries in bold."""
    for figure in task.figures:
        name = f"`{figure.name}`"
        meaning = figure.meaning + "; with `--java`" * figure.slow
        yield f"**{name}**" if figure.headline else name, span(figure), meaning


def epochs_table() -> str:
    """What an epoch of each task goes over, and whose choice that is; of those that are trained."""
    rows = ((f"`{task.name}`", task.epoch_over, task.epoch_source)
            for task in map(tasks.load, tasks.names()) if task.epoch_source)
    return table(("task", "an epoch goes over", "as in"), rows)


def tasks_page() -> str:
    """What every task reads, is made of, has for options and reports."""
    used: dict[str, set[str]] = {}
    for _, config in configs():
        for section in (config.task, *(entry.task for entry in config.evals.values())):
            used.setdefault(section.name, set()).add(composition(section))
    parts = [
        "# Tasks", NOTE, prose(
        "Of each task: what it does, the batch fields that its streams must give, what one example "
        "of an evaluation is, the modules and heads of its model, its options, which are the keys "
        "of `config.task`, and its figures. `{kind}` is what a figure is of, such as `video`; `*` "
        "stands for any words, in training for the stream's name. Those in bold stand in "
        "summaries."),
        "## Epochs", prose(
        "What comes up once an epoch of training, where the run's `data.epoch_over` does not say: "
        "each item (a caption, a question, a phrase), or each medium with a random one of its "
        "items ([data.md](../data.md#epochs)). The first word is one of "
        "[recipes.md](recipes.md)."), epochs_table()]
    for name in tasks.names():
        task = tasks.load(name)
        plain = composition({"name": name})
        others = sorted(used.get(name, set()) - {plain, ""})
        made = [f"{plain} by default"] * bool(plain)
        made += [f"{' or '.join(others)} in configs"] * bool(others)
        parts += [f"## {name}", prose(task.card),
                  prose(f"Fields: {code(task.fields)}. An example: each {task.expansion}. Modules "
                        f"and heads: {'; '.join(made)}."),
                  key_table(dict(defaults(task.Options)), dict(options.comments(task.Options))),
                  table(("figure", "range", "what it means"), figure_rows(task))]
    return "\n\n".join(parts) + "\n"


def headlines(config: ConfigDict) -> Iterator[str]:
    """The names of the figures that stand in the summary of a config's evaluations."""
    for name, entry in config.evals.items():
        given = dict(entry.task.items())  # not `tasks.read`, which opens files of classes
        task = tasks.load(given.pop("name"))
        found = options.read(task.Options, given, name)
        kind = entry.get("kind") or task.kind_of(found, task.stream(found, entry.stream, name))
        yield from (figure.name.format(kind=kind) for figure in task.figures
                    if figure.headline and "{kind}" in figure.name)


def plan(known: dict[str, dict[str, Any]], name: str) -> str:
    """What a config's step takes of a named slice, by `benchmarks/plans.json`; "-" for no plan."""
    if name not in known:
        return "-"
    entry, found = known[name], known[name]["plan"]
    memory = f"{found['used_gib']} of {found['of_gib']} GiB"
    if not found["fits"]:
        return f"`{entry['topology']}`: does not fit, {memory}"
    return f"`{entry['topology']}`: {memory}, {entry['hours_at_least']} h"


def configs_page() -> str:
    """What every config reads, learns, sets, takes and reports."""
    file = ROOT / "benchmarks" / "plans.json"
    plans = json.loads(file.read_text())["configs"] if file.is_file() else {}
    rows = []
    for name, config in configs():
        found = keys.keys(config)
        roots = {config.data.root, *(value for path, value in keys.leaves(config)
                                     if path.endswith(".root"))}
        rows.append((f"`{name}`", code(sorted(roots)), config.task.name, str(len(found)),
                     str(sum(map(len, found.values()))), plan(plans, name),
                     code(dict.fromkeys(headlines(config)))))
    text = prose(
        "Of each config as it is without a size or a preset: the folders of its data, its task, "
        "how many different keys it has (each kind of stream, source and evaluation counts once) "
        "and how many leaves; of a slice of TPUs what a device holds, and the hours that the "
        "training takes at least (`make plans`; a real step is longer); and the figures in the "
        "summary of its evaluations, where classes have an accuracy and scores a correlation. "
        "Tests validate every config, read all that it reads from raw files, and ask for the "
        "source of each of its numbers ([recipes.md](recipes.md)); `make walks` takes each through "
        "the commands of its docstring, in small: converted weights, training, a second start, "
        "evaluation. `--help_config` prints the keys of one. "
        "The paper's figures: [configs.md](../configs.md).")
    head = ("config", "data", "task", "different keys", "leaves", "plan", "figures")
    return "\n\n".join(["# Configs", NOTE, text, table(head, rows)]) + "\n"


def keys_page() -> str:
    """Every section's keys."""
    said = keys.all_comments(common.base("tiny"))
    parts = ["# Keys", NOTE, prose(
        "Of every section of a config, but for the tasks' own ([tasks.md](tasks.md)). `*` is a "
        "name that the run gives. An evaluation has besides a `stream`, with the keys of "
        "`data.streams.*`, and a `task`. What a source (`split.*`) does not give is its stream's.")]
    for prefix, cls in SECTIONS:
        known = {keys.kind_of(path): default for path, default in defaults(cls, prefix)}
        parts += [f"## {f'`{prefix[:-1]}`' if prefix else 'In no section'}", key_table(known, said)]
    return "\n\n".join(parts) + "\n"


def recipes_page() -> str:
    """Every number of every recipe, with its source."""
    return recipes.page(configs(), table, prose, NOTE)


def parameters_page() -> str:
    """What the presets differ in, and how many parameters there are."""
    return parameters.page(table, prose, NOTE)


def hardware_page() -> str:
    """How every config fits named hardware."""
    return hardware.page(table, prose, NOTE)


PAGES = {"tasks.md": tasks_page, "configs.md": configs_page, "keys.md": keys_page,
         "recipes.md": recipes_page, "parameters.md": parameters_page,
         "hardware.md": hardware_page, "scale.svg": hardware.plot}
# Tables within other pages, by page and name.
TABLES = {"scaling.md": {"recipes": lambda: hardware.short(table),
                         "scale": lambda: hardware.scale_table(table)}}


def filled(page: str) -> str:
    """A page of `docs/` with its tables as they are now."""
    text = (ROOT / "docs" / page).read_text()
    for name, made in TABLES[page].items():
        begin, end = f"<!-- `make docs`: {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        assert found and end in rest, f"docs/{page}: no place for the table {name!r}"
        text = f"{before}{begin}{made()}\n{rest[rest.index(end):]}"
    return text


def write(folder: Path) -> None:
    """Writes all pages to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reference")
    write(parser.parse_args().out)
    for name in TABLES:
        (ROOT / "docs" / name).write_text(filled(name))
