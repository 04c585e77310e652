"""The train state: what training changes, and how it goes to checkpoints and comes back."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax
from absl import logging
from jax.sharding import Mesh

from mplug2_jax.checkpoints import (
    AVERAGE,
    GUARD,
    OPTIMIZER,
    TASK_STATE,
    Checkpoints,
    LocalCheckpoints,
)
from mplug2_jax.parallel.sharding import tree_shardings
from mplug2_jax.training.guard import Guard, restored, start_guard


class Learner(Protocol):
    """What training needs of a task.

    Attributes:
      younger_state: by tree of its state, names in it that checkpoints may be too old to have.
    """

    younger_state: Mapping[str, tuple[str, ...]]

    def init_params(self, rng: jax.Array) -> Any:
        """Fresh parameters."""

    def init_state(self, params: Any) -> dict[str, Any]:
        """What it keeps across steps beside the parameters: trees by name."""

    def loss(self, params: Any, batch: Any, rng: jax.Array, task_state: Any,
             step: jax.Array) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """A scalar; metrics, and what `next_state` takes. `step` counts as the run's plan does:
        a float where batch sizes have changed (`Pace`)."""

    def next_state(self, task_state: Any, params: Any, carry: Any) -> dict[str, Any]:
        """What it keeps, after a step that led to `params`."""


class TrainState(flax.struct.PyTreeNode):
    """All that training changes.

    Attributes:
      step: int32 scalar, steps done; the next batch is the one of this number.
      params: float32 parameters, by module.
      opt_state: of the optimizer.
      task_state: what the task keeps across steps, trees by name.
      ema: moving average of the parameters for evaluation, or None (`optimizer.ema_decay`).
      guard: which steps changed nothing, and what a spike is known by.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    task_state: dict[str, Any] = flax.struct.field(default_factory=dict)
    ema: Any = None
    guard: Guard = flax.struct.field(default_factory=start_guard)

    @property
    def skipped(self) -> jax.Array:
        """Of the steps done those that changed nothing, an int32 scalar."""
        return self.guard.skipped

    @property
    def averaged(self) -> Any:
        """The parameters to evaluate."""
        return self.params if self.ema is None else self.ema

    def items(self) -> dict[str, Any]:
        """Its parts as items of a checkpoint, by name."""
        items = {"params": self.params, OPTIMIZER: self.opt_state, TASK_STATE: self.task_state,
                 AVERAGE: self.ema, GUARD: self.guard.item()}
        return {name: tree for name, tree in items.items() if tree is not None and tree != {}}


def create_state(task: Learner, optimizer: optax.GradientTransformation, seed: int,
                 ema: bool = False, params: Any = None,
                 task_state: dict[str, Any] | None = None, spike_window: int = 0) -> TrainState:
    """A fresh state, its averages equal to its parameters; under `jax.eval_shape`, its shapes.

    Args:
      task: gives parameters, and what else it keeps.
      optimizer: of `make_optimizer`.
      seed: of the parameters.
      ema: whether there is an average for evaluation.
      params: parameters to start from (`Checkpoints.load_params`), where a leaf is None a fresh
        one; None if all are.
      task_state: of what the task keeps what to start from (`Checkpoints.load_task_state`).
      spike_window: gradient norms by which spikes are known; 0 for none.
    """
    if params is None or any(map(_is_none, jax.tree.leaves(params, is_leaf=_is_none))):
        fresh = task.init_params(jax.random.key(seed))
        params = fresh if params is None else _filled(params, fresh)
    kept = task.init_state(params)
    kept |= {name: _filled(given, kept[name]) for name, given in (task_state or {}).items()}
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), kept,
                      jax.tree.map(jnp.copy, params) if ema else None, start_guard(spike_window))


def restore_state(checkpoints: Checkpoints, shapes: TrainState, mesh: Mesh,
                  task: Learner) -> TrainState:
    """The newest state of a folder, whole, placed on `mesh` by the sharding table.

    What the checkpoint lacks beside parameters and optimizer starts as in a fresh state, and so do
    parts that are younger than it (`Learner.younger_state`); what `shapes` lack is left. The log
    says so.

    Args:
      checkpoints: holds the state.
      shapes: a state of shapes (`jax.eval_shape`).
      mesh: any, also another than the one it was saved from.
      task: gives what the checkpoint lacks of its state.

    Raises:
      CheckpointError: its parameters, or what the task keeps, are not those of `shapes`.
    """
    wanted, entries = shapes.items(), checkpoints.entries()
    kept = {name: tree for name, tree in shapes.task_state.items() if name in entries}
    missing = shapes.task_state.keys() - entries
    younger = {name: found for name, parts in task.younger_state.items() if name in kept and (
        found := sorted(set(parts) - set(checkpoints.entry_shapes(name))))}
    wanted[TASK_STATE] = kept | {name: _without(kept[name], found)
                                 for name, found in younger.items()}
    if AVERAGE in wanted and not checkpoints.has(AVERAGE):
        del wanted[AVERAGE]
        missing |= {AVERAGE}
    del wanted[GUARD]
    if checkpoints.has(GUARD):  # whole, for its window may be another
        wanted[GUARD] = checkpoints.shapes(GUARD)
    dropped = entries - kept.keys()
    if shapes.ema is None and checkpoints.has(AVERAGE):
        dropped |= {AVERAGE}
    for name in sorted(dropped):
        logging.info("%s: the %s is dropped", checkpoints.folder, name)
    for name in sorted(missing):
        logging.info("%s: holds no %s: it starts afresh", checkpoints.folder, name)
    for name, found in younger.items():
        logging.info("%s: its %s is older than %s, of which it knows nothing", checkpoints.folder,
                     name, " and ".join(found))
    items = checkpoints.restore(wanted, mesh)
    params, task_state = items["params"], items.get(TASK_STATE, {})
    if missing - {AVERAGE} or younger:
        def start(state):
            return ({name: state[name] for name in missing - {AVERAGE}}
                    | {name: {part: state[name][part] for part in younger[name]}
                       for name in younger})

        places = tree_shardings(start(shapes.task_state), mesh)
        with jax.set_mesh(mesh):
            fresh = jax.jit(lambda params: start(task.init_state(params)),
                            out_shardings=places)(params)
        task_state |= fresh | {name: task_state[name] | fresh[name] for name in younger}
    ema = items.get(AVERAGE)
    if ema is None and shapes.ema is not None:
        ema = jax.tree.map(jnp.copy, params)
    step = jax.device_put(jnp.asarray(checkpoints.latest, jnp.int32),
                          tree_shardings(shapes.step, mesh))
    return TrainState(step, params, items[OPTIMIZER], task_state, ema,
                      _guard(items.get(GUARD), shapes.guard, mesh))


def restore_local(local: LocalCheckpoints, shapes: TrainState, mesh: Mesh) -> TrainState:
    """The state of the local checkpoint that was chosen, whose arrays are those of `shapes`.

    Raises:
      Damaged: it is not as it was written.
    """
    items = local.restore(shapes.items(), mesh)
    step = jax.device_put(jnp.asarray(local.latest, jnp.int32), tree_shardings(shapes.step, mesh))
    return TrainState(step, items["params"], items[OPTIMIZER], items.get(TASK_STATE, {}),
                      items.get(AVERAGE), Guard(**{"norms": None} | items[GUARD]))


def _guard(item: Mapping[str, jax.Array] | None, shapes: Guard, mesh: Mesh) -> Guard:
    """The guard of a checkpoint, if it has one, with the window that `shapes` have."""
    window = 0 if shapes.norms is None else len(shapes.norms)
    with jax.set_mesh(mesh):
        fresh = jax.jit(lambda: start_guard(window), out_shardings=tree_shardings(shapes, mesh))()
    return fresh if item is None else restored(item, fresh)


def _filled(given: Any, fresh: Any) -> Any:
    """The tree `given`, with those leaves of `fresh` where it has None."""
    return jax.tree.map(lambda one, other: other if one is None else one, given, fresh,
                        is_leaf=_is_none)


def _without(tree: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: x for name, x in tree.items() if name not in names}


def _is_none(x: Any) -> bool:
    return x is None
