"""The one compiled step that changes the train state."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mplug2_jax.parallel.mesh import batch_sharding, compiler_options
from mplug2_jax.parallel.sharding import tree_shardings
from mplug2_jax.training import guard, measures
from mplug2_jax.training.optimizer import hold
from mplug2_jax.training.pace import PLANNED, Pace
from mplug2_jax.training.state import Learner, TrainState


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


def loss_and_gradient(task: Learner, seed: int, frozen: Sequence[str] = (),
                      pace: Pace = PLANNED) -> Any:
    """`(state, batch) -> ((loss, (metrics, carry)), gradient)` of the state's next step."""
    def objective(params, state, batch, rng):
        return task.loss(hold(params, frozen), batch, rng, state.task_state,
                         pace.of_steps(state.step))

    def compute(state: TrainState, batch: Any) -> Any:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        return jax.value_and_grad(objective, has_aux=True)(state.params, state, batch, rng)

    return compute


def make_train_step(task: Learner, optimizer: optax.GradientTransformation, state_shape: TrainState,
                    mesh: Mesh, seed: int, frozen: Sequence[str] = (), ema_decay: float = 0.0,
                    spike_deviations: float = 10.0, pace: Pace = PLANNED) -> TrainStep:
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
      spike_deviations: as of `guard.is_good`, where the state has a window of gradient norms.
      pace: of the run, by which the task's loss counts steps.

    Returns:
      The step; its metrics are float32 scalars: the task's, `loss`, `tokens` of its texts,
      `grad_norm`, before clipping, of all and of each module, and int32 `skipped_steps` so far and
      `skipped_in_a_row`. A step that is not good (`guard.is_good`) counts, but changes nothing.
    """
    compute = loss_and_gradient(task, seed, frozen, pace)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        (loss, (metrics, carry)), grads = compute(state, batch)
        with jax.named_scope("optimizer"):  # for what a trace says
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {**metrics, "loss": loss, "tokens": measures.tokens(batch),
                   **measures.norms("grad_norm", grads)}
        params, ema = optax.apply_updates(state.params, updates), None
        if state.ema is not None:
            weight = 1 - ema_weight(ema_decay, state.step)
            # In this form what does not change, being frozen, keeps its average to the bit.
            ema = jax.tree.map(lambda old, new: old + weight * (new - old), state.ema, params)
        task_state = task.next_state(state.task_state, params, carry)
        new = TrainState(state.step, params, opt_state, task_state, ema, state.guard)
        with jax.named_scope("guard"):
            good = guard.is_good(state.guard, loss, metrics["grad_norm"], spike_deviations)
            seen = guard.after(state.guard, metrics["grad_norm"], good)
            new = guard.chosen(good, new, state).replace(step=state.step + 1, guard=seen)
        return new, metrics | {"skipped_steps": seen.skipped, "skipped_in_a_row": seen.in_a_row}

    shardings = tree_shardings(state_shape, mesh)
    return TrainStep(
        jax.jit(step, donate_argnums=0, in_shardings=(shardings, batch_sharding(mesh)),
                out_shardings=(shardings, None), compiler_options=compiler_options(mesh)), mesh)
