"""Pretraining that has no numbers in some steps: a task of one's own, as a user may have."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from mplug2_jax.contracts.options import option
from mplug2_jax.tasks import pretrain


@dataclasses.dataclass(frozen=True)
class Options(pretrain.PretrainOptions):
    """Those of pretraining."""

    bad: tuple = option((), "steps whose loss is NaN or infinite, or has a gradient that is NaN or "
                            "infinite in one array, in turn by the step's number")


class BadNumbers(pretrain.Pretrain):
    """Pretraining, but for steps that are bad."""

    Options = Options

    def loss(self, params, batch, rng, task_state=None, step=0):
        value, extra = super().loss(params, batch, rng, task_state, step)
        bad = (step + 1 == jnp.asarray(self.options.bad)).any()
        kind = jnp.where(bad, (step + 1) % 4, -1)
        leaf = jax.tree.leaves(params)[0]
        with jax.named_scope("planted"):
            value += 0 * jnp.log(jnp.where(kind == 2, -1.0, 1.0))
            value -= jnp.log(jnp.where(kind == 3, 0.0, 1.0))
            value += 0 * jnp.sqrt(jnp.where(kind == 0, 0.0, 1.0) * (1 + jnp.square(leaf).sum()))
            nothing = (leaf - lax.stop_gradient(leaf)).sum()  # but for its gradient
            value += jnp.sqrt(jnp.where(kind == 1, nothing, 1.0)) - (kind != 1)
        return value, extra
