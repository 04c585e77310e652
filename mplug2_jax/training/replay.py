"""A step of a run again, to say which module first made a value that is no number."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import logging

from mplug2_jax.training.blame import first_bad
from mplug2_jax.training.state import TrainState
from mplug2_jax.training.step import TrainStep

_AFTER = 20  # batches after the step, of which one that goes well is sought


def replay(state: TrainState, batches: Iterator[Any], step: int, run: TrainStep,
           compute: Callable[[Any, Any], Any]) -> str:
    """What a step's first value that is no number comes of; "" if it has none.

    Args:
      state: of a checkpoint before.
      batches: from there on.
      step: which one; the first is 1.
      run: the compiled step.
      compute: of `loss_and_gradient`.
    """
    good = None
    for number in range(int(state.step) + 1, step):
        batch = next(batches)
        state, metrics = run(state, batch)
        if int(metrics["skipped_in_a_row"]) == 0:
            good = number, batch
        logging.info("step %d again: loss %g", number, float(metrics["loss"]))
    bad = next(batches)
    kept = jax.tree.map(lambda x: x.copy(), state)  # buffers of what runs are donated
    after, metrics = run(state, bad)
    logging.info("step %d again: loss %g, norm of the gradient %g", step, float(metrics["loss"]),
                 float(metrics["grad_norm"]))
    for number in range(step + 1, step + 1 + (_AFTER if good is None else 0)):
        batch = next(batches)
        after, metrics = run(after, batch)
        if int(metrics["skipped_in_a_row"]) == 0:
            good = number, batch
            break
    went_well = None
    if good is not None:
        number, batch = good
        went_well = kept.replace(step=kept.step + (number - step)), batch
    else:
        logging.warning("no step around it went well: infinities that are meant are not told from "
                        "others")
    with jax.set_mesh(run.mesh):
        return first_bad(compute, went_well, (kept, bad))
