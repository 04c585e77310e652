"""The train state and the one compiled step that changes it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mplug2_jax.model.mplug2 import init_params
from mplug2_jax.objectives.momentum import Momentum, empty_queue, moving_average, soft_weight
from mplug2_jax.parallel.mesh import batch_sharding, compiler_options
from mplug2_jax.parallel.sharding import tree_shardings
from mplug2_jax.tasks.base import Task
from mplug2_jax.training.optimizer import hold


class TrainState(flax.struct.PyTreeNode):
    """All that training changes.

    Attributes:
      step: int32 scalar, steps done; the next batch is the one of this number.
      params: float32 parameters, by module.
      opt_state: of the optimizer.
      teacher: moving average of the parameters, or None (`task.momentum.teacher`).
      queue: features of earlier batches, or None (`task.momentum.queue`).
      ema: moving average of the parameters for evaluation, or None (`optimizer.ema_decay`).
    """

    step: jax.Array
    params: Any
    opt_state: Any
    teacher: Any = None
    queue: Any = None
    ema: Any = None

    @property
    def averaged(self) -> Any:
        """The parameters to evaluate."""
        return self.params if self.ema is None else self.ema


def create_state(task: Task, optimizer: optax.GradientTransformation, seed: int,
                 ema: bool = False, params: Any = None) -> TrainState:
    """A fresh state, its averages equal to its parameters; under `jax.eval_shape`, its shapes.

    Args:
      task: gives the model, and whether there are a teacher and its queue.
      optimizer: of `make_optimizer`.
      seed: of the parameters.
      ema: whether there is an average for evaluation.
      params: parameters to start from (`Checkpoints.load_params`), where a leaf is None a fresh
        one; None if all are.
    """
    momentum = task.options.momentum
    if params is None or any(map(_is_none, jax.tree.leaves(params, is_leaf=_is_none))):
        fresh = init_params(task.model, jax.random.key(seed))
        params = fresh if params is None else jax.tree.map(
            lambda given, drawn: drawn if given is None else given, params, fresh,
            is_leaf=_is_none)
    return TrainState(
        jnp.zeros((), jnp.int32), params, optimizer.init(params),
        jax.tree.map(jnp.copy, params) if momentum.teacher else None,
        empty_queue(momentum.queue_size, task.model.config.contrastive_dim) if momentum.queue
        else None,
        jax.tree.map(jnp.copy, params) if ema else None)


def _is_none(x: Any) -> bool:
    return x is None


def ema_weight(decay: float, step: jax.Array) -> jax.Array:
    """The average's own weight in a step: `decay`, less in the first steps.

    So an average of few steps is not that of the values it started from.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The jitted step under its mesh.

    Attributes:
      jitted: `(state, batch) -> (state, metrics)`.
      mesh: of `make_mesh`.
    """

    jitted: Any
    mesh: Mesh

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        """Runs it."""
        with jax.set_mesh(self.mesh):
            return self.jitted(state, batch)

    def lower(self, state: TrainState, batch: Any) -> jax.stages.Lowered:
        """Lowers it for arrays or shapes; the mesh may be of devices that are not there."""
        with jax.set_mesh(self.mesh):
            return self.jitted.lower(state, batch)


def make_train_step(task: Task, optimizer: optax.GradientTransformation, state_shape: TrainState,
                    mesh: Mesh, seed: int, frozen: Sequence[str] = (),
                    ema_decay: float = 0.0) -> TrainStep:
    """The jitted step `(state, batch) -> (state, metrics)`; the state's buffers are donated.

    Randomness is a function of the seed and the step, so a resumed run draws what the
    uninterrupted one would have.

    Args:
      task: gives the loss.
      optimizer: of `make_optimizer`.
      state_shape: a state of arrays or shapes, for the shardings.
      mesh: of `make_mesh`.
      seed: of the run.
      frozen: expressions over the paths of parameters through which no gradient goes.
      ema_decay: of the state's `ema`, if it has one.

    Returns:
      The step; its metrics are float32 scalars: the task's, `loss` and `grad_norm`.
    """

    options = task.options.momentum

    def objective(params, state, batch, rng):
        params = hold(params, frozen)
        if state.teacher is None:
            loss, metrics = task.loss(params, batch, rng)
            return loss, (metrics, None)
        alpha = soft_weight(options, state.step)
        return task.momentum_loss(params, Momentum(state.teacher, state.queue, alpha), batch, rng)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        grad = jax.value_and_grad(objective, has_aux=True)
        (loss, (metrics, queue)), grads = grad(state.params, state, batch, rng)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = metrics | {"loss": loss, "grad_norm": optax.global_norm(grads)}
        params, teacher, ema = optax.apply_updates(state.params, updates), None, None
        if state.teacher is not None:
            teacher = moving_average(state.teacher, params, options.decay)
        if state.ema is not None:
            ema = moving_average(state.ema, params, ema_weight(ema_decay, state.step))
        return TrainState(state.step + 1, params, opt_state, teacher, queue, ema), metrics

    shardings = tree_shardings(state_shape, mesh)
    return TrainStep(
        jax.jit(step, donate_argnums=0, in_shardings=(shardings, batch_sharding(mesh)),
                out_shardings=(shardings, None), compiler_options=compiler_options(mesh)), mesh)
