"""What every conversion does to fit tensors to a model: shapes, resized tables, completeness."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from mplug2_jax.convert.layout import Layout, Shape, WeightsError, resize_positions
from mplug2_jax.convert.weights_file import Tensors
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build, init_params
from mplug2_jax.parallel.sharding import path_name


def first_rule(rules: Iterable[tuple[str, str]], name: str) -> str | None:
    """The first of `(rule, pattern)` whose pattern is found in a name, or None."""
    return next((rule for rule, pattern in rules if re.search(pattern, name)), None)


def split(tensors: Tensors, rule_of: Callable[[str], str | None],
          ) -> tuple[Tensors, dict[str, list[str]]]:
    """The used tensors, and the ignored names by the rule that each is ignored by."""
    kept: Tensors = {}
    ignored: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        rule = rule_of(name)
        if rule is None:
            kept[name] = tensor
        else:
            ignored.setdefault(rule, []).append(name)
    return kept, ignored


def check_tied(tensors: Tensors, source: str, tied: Mapping[str, str], required: bool,
               advice: str = "") -> None:
    """A vocabulary head's output layer is the word embedding itself, stored once more.

    Args:
      tensors: of the checkpoint.
      source: the file, for messages.
      tied: by what is stored once more, what it is.
      required: whether it must be.
      advice: what to do where it is not the same, with `{name}`.

    Raises:
      WeightsError: it is missing, or another matrix.
    """
    missing = [name for name in tied if name not in tensors]
    if missing and required:
        raise WeightsError(f"{source}: the weights do not fit the model: {len(missing)} missing: "
                           + ", ".join(missing))
    for name, twin in tied.items():
        if name in tensors and twin in tensors and not np.array_equal(
                tensors[name].load(), tensors[twin].load()):
            raise WeightsError(f"{source}: {name} differs from {twin}, to which it is tied"
                               + advice.format(name=name))


def resizes(tensors: Tensors, layout: Layout, ours: Mapping[str, Shape]) -> dict[str, Any]:
    """How positional tables that have other numbers of rows become ours.

    Raises:
      WeightsError: a text table has fewer positions than the config asks for.
    """
    found = {}
    for name, slots in layout.items():
        rows, wanted = tensors[name].shape[:1], ours[slots[0].parameter][:1]
        if slots[0].parameter == "vision/position" and rows != wanted:
            found[name] = partial(resize_positions, rows=wanted[0])
        elif slots[0].parameter.endswith("embeddings/position") and rows != wanted:
            if rows < wanted:
                raise WeightsError(f"{name} has {rows[0]} positions, fewer than "
                                   f"model.max_positions = {wanted[0]}")
            found[name] = partial(first_rows, rows=wanted[0])
    return found


def first_rows(table: np.ndarray, rows: int) -> np.ndarray:
    """The first rows of a table."""
    return table[:rows]


def parameter_shapes(config: ModelConfig, modules: tuple[str, ...],
                     heads: tuple[str, ...] = ()) -> dict[str, Shape]:
    """Shapes of a model's parameters by path, at no memory."""
    tree = jax.eval_shape(
        lambda: init_params(build(config, modules, heads), jax.random.key(0)))
    return {path_name(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def require_complete(ours: Mapping[str, Shape], params: Mapping[str, Any]) -> None:
    """Raises WeightsError where a parameter of the model got no value."""
    if left := sorted(set(ours) - set(params)):
        raise WeightsError("parameters that the checkpoint does not give: " + ", ".join(left))
