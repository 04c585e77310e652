"""Pretraining whose loss is no number in some steps: a task of one's own, as a user may have."""

import dataclasses

import jax
import jax.numpy as jnp

from mplug2_jax.contracts.options import option
from mplug2_jax.tasks import pretrain


@dataclasses.dataclass(frozen=True)
class Options(pretrain.PretrainOptions):
    """Those of pretraining."""

    bad: tuple = option((), "steps whose loss is no number")


class BadNumbers(pretrain.Pretrain):
    """Pretraining, but for steps that are bad."""

    Options = Options

    def loss(self, params, batch, rng, task_state=None, step=0):
        value, extra = super().loss(params, batch, rng, task_state, step)
        with jax.named_scope("planted"):
            bad = (step + 1 == jnp.asarray(self.options.bad)).any()
            value += 0 * jnp.log(jnp.where(bad, -1.0, 1.0))
        return value, extra
