"""The train state and the one compiled step that changes it."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mplug2_jax.model import init_params
from mplug2_jax.tasks.base import Task
from mplug2_jax.training.sharding import batch_sharding, tree_shardings


class TrainState(flax.struct.PyTreeNode):
    """All that training changes.

    Attributes:
      step: int32 scalar, steps done; the next batch is the one of this number.
      params: float32 parameters, by module.
      opt_state: of the optimizer.
    """

    step: jax.Array
    params: Any
    opt_state: Any


def create_state(task: Task, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """A fresh state; under `jax.eval_shape`, its shapes."""
    params = init_params(task.model, jax.random.key(seed))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make_train_step(task: Task, optimizer: optax.GradientTransformation, state_shape: TrainState,
                    mesh: Mesh, seed: int) -> Callable[[TrainState, Any], tuple[TrainState, Any]]:
    """The jitted step `(state, batch) -> (state, metrics)`; the state's buffers are donated.

    Randomness is a function of the seed and the step, so a resumed run draws what the
    uninterrupted one would have.

    Args:
      task: gives the loss.
      optimizer: of `make_optimizer`.
      state_shape: a state of arrays or shapes, for the shardings.
      mesh: of `make_mesh`.
      seed: of the run.

    Returns:
      The step; its metrics are float32 scalars: the task's, `loss` and `grad_norm`.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        grad = jax.value_and_grad(task.loss, has_aux=True)
        (loss, metrics), grads = grad(state.params, batch, rng)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = metrics | {"loss": loss, "grad_norm": optax.global_norm(grads)}
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), metrics

    shardings = tree_shardings(state_shape, mesh)
    compiled = jax.jit(step, donate_argnums=0, in_shardings=(shardings, batch_sharding(mesh)),
                       out_shardings=(shardings, None))

    def run(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        with jax.set_mesh(mesh):
            return compiled(state, batch)

    return run
