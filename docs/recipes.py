"""The page of recipes: every number of a config's recipe, with its source."""

import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common, recipe, sizes
from configs.keys import leaves
from mplug2_jax import tasks
from mplug2_jax.contracts.options import section
from mplug2_jax.contracts.streams import Stream

# Keys whose value is shown though it is the default: it matters, or others say it.
ALWAYS = re.compile(
    r"optimizer\.(learning_rate|vision_learning_rate|final_learning_rate|warmup_steps|weight_decay"
    r"|b1|b2|clip_norm)|model\.dropout|task\.(beams|min_length|max_length|rerank|objectives\.\w+)"
    r"|stream\.(batch_size|image_size|crop_area|flip|rand_augment)")
# What a run reads, and how it is computed: no numbers of a recipe.
LEFT_OUT = re.compile(
    r"optimizer\.steps|task\.(name|classes|inputs|expand|memory|accumulation|location_bins)"
    r"|(stream|evaluation)\.(name|split(\..*)?|root|ask|instruction|text_pair)"
    r"|model\.(vocab_size|remat\..*|scan|dtype|shard_frames)")
VISION = re.compile(r"optimizer\.vision_learning_rate|stream\.(image_size|crop_area|flip"
                    r"|rand_augment)")
Configs = Iterable[tuple[str, ConfigDict]]  # by what `--config` takes behind the folder
Choices = Mapping[str, ConfigDict]  # of one file, by what stands behind the colon


def numbers(config: ConfigDict, size: str = "large", preset: str = "release") -> dict[str, Any]:
    """Every number of a config's recipe, by the keys of `SOURCES` (`configs/recipe.py`).

    Of several streams each has its name in place of `stream`.

    Args:
      config: of a data set.
      size, preset: it is of.
    """
    found: dict[str, Any] = {}
    if config.eval_every:
        batch = next(iter(config.data.streams.values())).batch_size  # that counts the epochs
        unit = config.data.epoch_over or tasks.load(config.task.name).epoch_over
        found["examples"] = f"{config.eval_every:,} steps of {batch:,} {unit}"
        found["epochs"] = round(config.optimizer.steps / config.eval_every, 2)
        found["eval_limit"] = config.eval_limit
    sees = any(stream.get("frames") for stream in config.data.streams.values())

    def add(prefix: str, values: Mapping[str, Any], defaults: Mapping[str, Any],
            name: str = "") -> None:
        plain = dict(leaves(defaults))
        for path, value in leaves(values):
            key = f"{prefix}.{path}"
            shown = ALWAYS.fullmatch(key) or path not in plain or value != plain[path]
            seen = values.get("frames", True) if prefix == "stream" else sees
            if shown and not LEFT_OUT.fullmatch(key) and (seen or not VISION.fullmatch(key)):
                found[f"{name or prefix}.{path}"] = value

    add("optimizer", config.optimizer, section(common.Optimizer()))
    add("model", config.model, sizes.model(size, preset))
    add("task", config.task, tasks.section(config.task.name))
    for name, stream in config.data.streams.items():
        add("stream", section(Stream()) | stream.to_dict(), section(Stream()),
            name if len(config.data.streams) > 1 else "")
    for entry in config.evals.values():
        seen = [stream.to_dict() for stream in config.data.streams.values()]
        other = {key: value for key, value in entry.stream.items()
                 if key == "batch_size" or all(stream.get(key) != value for stream in seen)}
        add("evaluation", other, {})
        add("evaluation", entry.task.to_dict(), tasks.section(config.task.name)
            | {key: value for key, value in config.task.to_dict().items()})
    return found


def sources(module: Any) -> dict[str, str]:
    """The source of every key of a config's module that has one."""
    return recipe.flat(recipe.SHARED) | recipe.flat(module.SOURCES)


def said(value: Any) -> str:
    """A number as the page shows it."""
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def rows(choices: Choices, known: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """A row a number: its key, its value in each of the config's choices, its source."""
    found = {name: numbers(config) for name, config in choices.items()}
    for key in dict.fromkeys(key for values in found.values() for key in values):
        groups: dict[str, list[str]] = {}
        for name, values in found.items():
            if key in values:
                groups.setdefault(said(values[key]), []).append(name or "by default")
        value = "; ".join(text if len(groups) == 1 else f"{text} ({', '.join(names)})"
                          for text, names in groups.items())
        yield f"`{key}`", value, known[key]


def page(configs: Configs, table: Callable[..., str], prose: Callable[[str], str],
         note: str) -> str:
    """`docs/reference/recipes.md` of all configs; `table` and `prose` write Markdown."""
    parts = ["# Recipes", note, prose(
        "Every number of the recipe of every data set, in size large, and where it is from: "
        "numbers that matter, and all that are not a key's default. `stream` is any stream of "
        "training, `evaluation` what evaluations have otherwise. An epoch goes over "
        "items or media ([tasks.md](tasks.md#epochs)), in whole batches. Of what the "
        "release does, this is left out on purpose: distillation in fine-tuning, whose soft "
        "targets are normalised over the wrong axis, and the choice of the best checkpoint on the "
        "test split. The first word of a source is one of these:"),
        table(("source", "what it is"), recipe.REFERENCES.items())]
    tables = {name: list(rows(choices, sources(module)))
              for name, module, choices in modules(configs)}
    counts = Counter(row for found in tables.values() for row in found)
    most = [row for row, count in counts.items() if 2 * count > len(tables)]
    head = ("number", "value", "source")
    parts += ["## Most of them", prose(
        "Where a recipe below does not name these, and has a use for them, they are:"),
        table(head, most)]
    for name, found in tables.items():
        parts += [f"## {name}", table(head, (row for row in found if row not in most))]
    return "\n\n".join(parts) + "\n"


def modules(configs: Configs) -> Iterator[tuple[str, Any, Choices]]:
    """Of every config with sources its file, its module and its configs by choice."""
    found: dict[str, dict[str, ConfigDict]] = {}
    for name, config in configs:
        file, _, choice = name.partition(":")
        found.setdefault(file, {})[choice] = config
    for file, choices in found.items():
        module = importlib.import_module(f"configs.{file.removesuffix('.py')}")
        if hasattr(module, "SOURCES"):
            yield file, module, choices
