"""The momentum copies of a pretraining checkpoint as the parameters of a pretraining's teacher.

The family's momentum models have no copy of the matching head and of the temperature, which a
teacher does not use; and a copy of the fusion encoder that is never updated, a known fault, so that
it is still what it was created as. These parts of the teacher are the model's own.
"""

import re
from collections.abc import Mapping

import numpy as np

from mplug2_jax.convert.fitting import check_tied, resizes
from mplug2_jax.convert.layout import Layout, Shape, WeightsError, check_names, fill, shorten
from mplug2_jax.convert.release_names import FUSION, HEADS, MOMENTUM, TEMPERATURE
from mplug2_jax.convert.weights_file import Tensors

OWN = rf"^({FUSION}\.|{TEMPERATURE}$)|{HEADS['vtm']}"
NOTE = ("teacher: its fusion, matching head and temperature are the model's own; the release "
        "updates no copy of them")


def momentum_copies(tensors: Tensors, known: Mapping[str, object],
                    ignored: Mapping[str, list[str]], source: str) -> tuple[Tensors, list[str]]:
    """Sorts the momentum copies of a checkpoint.

    Args:
      tensors: all of the checkpoint.
      known: names of the model that are used.
      ignored: its names that are not, by rule.
      source: the file, for messages.

    Returns:
      The copies of what is used, by the names of what they are copies of, and the other names.

    Raises:
      WeightsError: there is none, or one is of something unknown.
    """
    unneeded = {name for names in ignored.values() for name in names}
    used: Tensors = {}
    unused, unknown = [], []
    for name, tensor in tensors.items():
        if not re.search(MOMENTUM, name):
            continue
        original = name.replace("_m.", ".", 1)
        if original in unneeded or re.search(OWN, original):
            unused.append(name)
        elif original in known:
            used[original] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise WeightsError(f"{source}: {len(unknown)} momentum copies of what the model does not "
                           f"have: {shorten(unknown)}; --drop=REGEX leaves them out")
    if not used:
        raise WeightsError(f"{source}: holds no momentum copies to make a teacher of")
    return used, unused


def teacher_params(model: Tensors, copies: Tensors, layout: Layout, tied: Mapping[str, str],
                   ours: Mapping[str, Shape], resizable: tuple[str, ...], source: str,
                   ) -> dict[str, np.ndarray]:
    """The teacher's parameters, float32 by path, as many as the model's.

    Args:
      model: the model's used tensors, by name.
      copies: of `momentum_copies`.
      layout, ours, resizable: as of `check_names`, of the model.
      tied: of `check_tied`.
      source: the file, for messages.

    Raises:
      WeightsError: a copy is missing, or of another shape or dtype.
    """
    source = f"{source}, momentum copies"
    check_tied(copies, source, tied, required=False)
    found = {name: tensor for name, tensor in copies.items() if name in layout}
    found |= {name: model[name] for name in layout if re.search(OWN, name)}
    check_names(found, layout, ours, source, resizable)
    return fill(found, layout, ours, resizes(found, layout, ours), source)
