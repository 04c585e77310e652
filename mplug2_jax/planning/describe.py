"""What a config's task is made of: the modules that a training step calls, in order, as text.

    python -m mplug2_jax.describe --config=configs/demo_tasks.py:image_digit

For each call of a module: its parameters, whether they are trained, the shapes that go in and come
out, the FLOPs of one forward pass (a multiply-add is 2), and the bytes that it keeps for the
backward pass. Nothing is allocated or compiled, and no data is read.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import flags
from jax.core import ShapedArray
from jax.extend.core import Var
from ml_collections import ConfigDict

from mplug2_jax import launch
from mplug2_jax.model.config import MODULES
from mplug2_jax.parallel.sharding import path_name
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.planning.shapes import batch_shapes, planned
from mplug2_jax.training.optimizer import matching

OWN_METHODS = ("setup", "word_embeddings")  # that compute nothing


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a module.

    Attributes:
      module: "vision", or "heads/vtc".
      method: of the module; "" for `__call__`.
      inputs, outputs: shapes of the arrays.
      parameters, trained: their numbers.
      flops: of the forward pass.
      kept: bytes that the backward pass needs, its inputs included, its parameters not.
    """

    module: str
    method: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    parameters: int
    trained: int
    flops: int
    kept: int

    @property
    def name(self) -> str:
        """`universal.vision`, `heads/vtc.project`."""
        return f"{self.module}.{self.method}" if self.method else self.module

    @property
    def state(self) -> str:
        """"trained", "frozen" or "in part"."""
        return {0: "frozen", self.parameters: "trained"}.get(self.trained, "in part")


def count(tree: Any) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def find_calls(function: Callable[..., Any], params: Any, frozen: Sequence[str],
               *args: Any) -> list[Call]:
    """The calls of modules in `function(params, *args)`, in order.

    Args:
      function: applies an `MPlug2` of `params`.
      params: as shapes, by module.
      frozen: of the config.
      *args: arrays or shapes.
    """
    hidden = matching(frozen)
    trained = jax.tree_util.tree_map_with_path(
        lambda path, x: not hidden.search(path_name(path)), params)
    calls: list[Call] = []
    inside = False

    def intercept(next_function, args, kwargs, context):
        nonlocal inside
        path, method = context.module.path, context.method_name
        depth = 2 if path[:1] == ("heads",) else 1
        if inside or len(path) != depth or method in OWN_METHODS:
            return next_function(*args, **kwargs)
        inside = True  # also while the call is traced once more
        out = next_function(*args, **kwargs)
        own, own_trained = params, trained
        for key in path:
            own, own_trained = own[key], own_trained[key]
        # A gradient comes to the input where something before it is trained.
        reaches = any(call.trained for call in calls)
        calls.append(measure(context.module, method, "/".join(path), own, own_trained, reaches,
                             (args, kwargs), out))
        inside = False
        return out

    with nn.intercept_methods(intercept):
        jax.eval_shape(function, params, *args)
    return calls


def measure(module: nn.Module, method: str, name: str, params: Any, trained: Any, reaches: bool,
            inputs: Any, outputs: Any) -> Call:
    """One call by itself: of `inputs` (args, kwargs), traced once more."""
    leaves, structure = jax.tree.flatten(inputs)
    arrays = [i for i, x in enumerate(leaves) if hasattr(x, "shape")]
    shapes = [jax.ShapeDtypeStruct(leaves[i].shape, leaves[i].dtype) for i in arrays]
    alone = module.clone(parent=None, name=None)
    rngs = {"dropout": jax.random.key(0)} if module.has_rng("dropout") else None

    def run(params, arrays):
        whole = list(leaves)
        for i, x in zip(arrays_at, arrays, strict=True):
            whole[i] = x
        args, kwargs = jax.tree.unflatten(structure, whole)
        return alone.apply({"params": params}, *args, method=method, rngs=rngs, **kwargs)

    arrays_at = arrays
    flat, tree = jax.tree.flatten(params)
    differentiated = [(0, i) for i, yes in enumerate(jax.tree.leaves(trained)) if yes]
    differentiated += [(1, i) for i, x in enumerate(shapes)
                       if reaches and jnp.issubdtype(x.dtype, jnp.floating)]

    def kept(params, arrays):
        def call(values):
            both = [list(params), list(arrays)]
            for (which, i), value in zip(differentiated, values, strict=True):
                both[which][i] = value
            return run(jax.tree.unflatten(tree, both[0]), both[1])

        values = [(params, arrays)[which][i] for which, i in differentiated]
        return jax.vjp(call, values)[1]

    return Call(
        module=name, method="" if method == "__call__" else method,
        inputs=shapes_of(leaves), outputs=shapes_of(jax.tree.leaves(outputs)),
        parameters=count(params),
        trained=sum(math.prod(flat[i].shape) for which, i in differentiated if which == 0),
        flops=count_flops(run, params, shapes),
        kept=kept_bytes(kept, flat, shapes) if differentiated else 0)


def shapes_of(leaves: list[Any]) -> tuple[tuple[int, ...], ...]:
    """Of the arrays among them, but for boolean ones (masks)."""
    return tuple(tuple(x.shape) for x in leaves
                 if hasattr(x, "shape") and x.dtype != jnp.bool_ and x.ndim)


def kept_bytes(function: Callable[..., Any], params: list[Any], arrays: list[Any]) -> int:
    """Bytes of what `function(params, arrays)` gives, each array once, without the parameters."""
    jaxpr = jax.make_jaxpr(function)(params, arrays).jaxpr
    own = set(jaxpr.invars[:len(params)])
    kept = [x.aval for x in {x for x in jaxpr.outvars if isinstance(x, Var)} - own]
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in kept if isinstance(x, ShapedArray)
               and not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))


def describe(config: ConfigDict) -> str:
    """The drawing.

    Raises:
      ConfigError: a config that cannot be run.
    """
    task, streams = planned(config)
    params = jax.eval_shape(lambda: task.init_params(jax.random.key(0)))
    frozen = config.optimizer.frozen
    lines, total = [], 0
    for name, fields in batch_shapes(task, streams).items():
        calls = find_calls(task.loss, params, frozen, {name: fields}, jax.random.key(0))
        total += sum(call.flops for call in calls)
        given = "   ".join(f"{field} {drawn(x.shape)}" for field, x in fields.items()
                           if not field.endswith(("_mask", "_id")))
        lines += [f"stream {name}", f"  {given}", *draw(calls), ""]
    unused = [module for module in MODULES if module not in params]
    hidden = matching(frozen)
    trained = sum(math.prod(x.shape) for path, x in jax.tree_util.tree_leaves_with_path(params)
                  if not hidden.search(path_name(path)))
    named = {"heads ": task.model.heads_used, "without ": unused}
    return "\n".join([
        f"task {config.task.name}: {', '.join(task.model.modules)}" + "".join(
            f"; {words}{', '.join(some)}" for words, some in named.items() if some),
        "", *lines,
        f"{count(params):,} parameters, {trained:,} of them trained; "
        f"{scaled(total, 1000, 'FLOPs')} a forward pass of the batch"])


def draw(calls: list[Call]) -> list[str]:
    """A line a call, in columns, between the arrows that lead to it."""
    rows = [(call.name, f"{' '.join(map(drawn, call.inputs))} ─▶ "
             f"{' '.join(map(drawn, call.outputs))}", scaled(call.parameters, 1000, ""),
             call.state, scaled(call.flops, 1000, "FLOPs"), scaled(call.kept, 1024, "iB"))
            for call in calls]
    head = ("module", "shapes", "parameters", "", "forward", "kept for backward")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(mark, row):
        cells = [f"{cell:>{width}}" if i in (2, 4, 5) else f"{cell:<{width}}"
                 for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        return f"  {mark} {'  '.join(cells)}".rstrip()

    return [line(" ", head), *(line("▼", row) for row in rows)]


def drawn(shape: tuple[int, ...]) -> str:
    """`[8, 4, 48, 48, 3]`."""
    return f"[{', '.join(map(str, shape))}]"


def scaled(number: int, base: int, unit: str) -> str:
    """`1.23 G` and the unit, to three digits, in steps of `base`."""
    size, prefixes = float(number), ["", "k" if base == 1000 else "K", *"MGTP"]
    while size >= base and len(prefixes) > 1:
        size /= base
        prefixes.pop(0)
    prefix = prefixes[0]
    if unit == "iB" and not prefix:
        unit = "B"
    digits = f"{size:.0f}" if not prefix or size >= 100 else f"{size:.3g}"
    return f"{digits} {prefix}{unit}".rstrip()


def command() -> None:
    """Defines the flags and runs."""
    config = launch.define_config("The config whose task is described.")
    flags.mark_flag_as_required("config")
    launch.main(lambda: print(describe(config.value)))
