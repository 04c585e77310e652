"""About how much a step holds of a device, from shapes alone: which candidates are worth compiling.

What the backward pass keeps is counted on the traced step, of the whole batch (`describe`); the
state by the places of its arrays. What a layer holds while it is computed again, and how many
buffers the compiler saves, is a share that fits what it said of the configs' steps on TPUs.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from mplug2_jax.model.config import MODULES
from mplug2_jax.parallel.mesh import AXES, BATCH
from mplug2_jax.parallel.sharding import path_name, spec_for
from mplug2_jax.planning.chips import GIB
from mplug2_jax.planning.describe import kept_bytes
from mplug2_jax.planning.plan import state_shapes
from mplug2_jax.planning.shapes import batch_shapes
from mplug2_jax.tasks.base import PerExample

LAYER = 0.6  # of what a layer's operations keep: in use at a time while it is differentiated
FIXED = GIB / 2  # gathered weights, the whole table of words and its gradient, the program


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a config's step needs, of whatever mesh.

    Attributes:
      state: shapes of the train state.
      kept: bytes that the backward pass needs, of the whole batch, by remat policy.
      layers: of the module that has most.
      features: bytes of what encoders give, of the whole batch, which a step in micro-batches keeps
        where it compares examples; 0 where it does not.
    """

    state: Any
    kept: dict[str, int]
    layers: int
    features: int

    def peak(self, mesh: Mapping[str, int], policy: str, accumulation: int) -> float:
        """Bytes of a device, about."""
        shape = AbstractMesh(tuple(mesh.values()), AXES)
        params = _bytes(self.state.params, shape)
        ways = math.prod(mesh[axis] for axis in BATCH) * (1 + mesh["tensor"]) / 2
        layer = LAYER * self.kept["none"] / self.layers
        rows = (self.kept[policy] + (layer if policy != "none" else 0)) / accumulation
        # A gradient, and of micro-batches their sum.
        return (FIXED + _bytes(self.state, shape) + params * min(accumulation, 2)
                + (rows + self.features * (accumulation > 1)) / ways)


def needs(config: ConfigDict, policies: tuple[str, ...], mesh: Mesh | None = None) -> Needs:
    """What the step of a config needs under each remat policy, in all modules alike.

    Args:
      config: of a run.
      policies: "none" is counted besides.
      mesh: of devices whose kernels of attention are to be counted; else attention is that of CPUs,
        which keeps more.
    """
    kept: dict[str, int] = {}
    for policy in dict.fromkeys((*policies, "none")):
        trial = config.copy_and_resolve_references()
        trial.model.remat.update(dict.fromkeys(MODULES, policy))
        if "accumulation" in trial.task:
            trial.task.accumulation = 1
        task, streams, _, state = state_shapes(trial)
        kept[policy] = _kept(task, state, batch_shapes(task, streams), mesh)
    model = task.model.config
    layers = max(getattr(model, f"{module}_layers") for module in task.model.modules
                 if hasattr(model, f"{module}_layers"))
    compares = not isinstance(task, PerExample)
    return Needs(state, kept, layers, 2 * kept["full"] // layers if compares else 0)


def _kept(task: Any, state: Any, batch: Any, mesh: Mesh | None) -> int:
    flat, tree = jax.tree.flatten(state.params)
    given, given_tree = jax.tree.flatten((batch, state.task_state))

    def residuals(params, given):
        batch, task_state = jax.tree.unflatten(given_tree, given)
        return jax.vjp(lambda params: task.loss(jax.tree.unflatten(tree, params), batch,
                                                jax.random.key(0), task_state)[0], params)[1]

    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        return kept_bytes(residuals, flat, given)


def _bytes(tree: Any, mesh: AbstractMesh) -> float:
    """Of a tree of shapes what a device holds."""
    total = 0.0
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        ways = math.prod(mesh.shape[axis] for axis in spec_for(path_name(path), x.shape, mesh)
                         if axis)
        total += math.prod(x.shape) * x.dtype.itemsize / ways
    return total
