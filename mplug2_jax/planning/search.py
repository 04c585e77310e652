"""The largest batch that fits a topology, and the mesh and remat that make its step shortest."""

from collections.abc import Callable

from ml_collections import ConfigDict

from mplug2_jax.model.config import MODULES
from mplug2_jax.planning.plan import DoesNotFit, Plan, gib, with_batch

# From what is computed again most, and kept least, to nothing.
POLICIES = ("full", "dots_no_batch", "none")
TENSOR = (1, 2, 4)  # sizes of the tensor axis to try; fsdp takes the rest of the devices


def search(config: ConfigDict, compiled: Callable[[ConfigDict], Plan], devices: int,
           start: int) -> tuple[ConfigDict, Plan]:
    """Finds a config by few compilations, each reported on a line.

    More remat never needs more memory. So the batch doubles under the heaviest until it does not
    fit, on each mesh as long as that gets further than the one before; with the largest batch the
    remat is then made lighter as long as it fits, and the shortest step is kept.

    Args:
      config: where to start; its mesh, remat and batch sizes are replaced.
      compiled: the plan of a config; raises DoesNotFit.
      devices: of the topology.
      start: the largest stream's batch to begin with.

    Returns:
      The config and its plan.

    Raises:
      DoesNotFit: not even the first batch fits.
    """
    best: tuple[ConfigDict, Plan] | None = None
    failures: list[DoesNotFit] = []

    def attempt(tensor: int, policy: str, batch: int) -> tuple[ConfigDict, Plan] | None:
        trial = with_batch(config, batch)
        trial.mesh.update(dict(data=1, fsdp=-1, tensor=tensor))
        trial.model.remat.update(dict.fromkeys(MODULES, policy))
        line = f"mesh fsdp {devices // tensor} x tensor {tensor}, remat {policy}, batch {batch:,}: "
        try:
            plan = compiled(trial)
        except DoesNotFit as error:
            failures.append(error)
            print(f"{line}{gib(error.used - error.limit)} too much", flush=True)
            return None
        print(f"{line}fits, peak {gib(plan.peak)}, step at least "
              f"{max(plan.bounds.values()):.3f} s", flush=True)
        return trial, plan

    batch = start
    for tensor in TENSOR:
        if devices % tensor or config.model.heads % tensor:
            break
        further = False
        while (found := attempt(tensor, POLICIES[0], batch)) is not None:
            best, further, batch = found, True, 2 * batch
        if not further:
            break
    if best is None:
        raise failures[0]
    tensor, batch = best[0].mesh.tensor, batch // 2
    for policy in POLICIES[1:]:
        found = attempt(tensor, policy, batch)
        if found is None:
            break
        best = min(best, found, key=lambda pair: max(pair[1].bounds.values()))
    return best
