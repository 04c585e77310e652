"""Mesh, remat and micro-batches for a step: `search` for its largest batch, `fit` for its own."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ml_collections import ConfigDict

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.config import MODULES
from mplug2_jax.planning.estimate import Needs
from mplug2_jax.planning.plan import DoesNotFit, Plan, gib, with_batch
from mplug2_jax.planning.topology import Topology

# From what is computed again most, and kept least, to nothing.
POLICIES = ("full", "dots_no_batch", "none")
# Of them those that `fit` tries: between the two, what is kept has to be moved, and of the large
# model's steps neither on a v5p nor on an H100 one took less time (docs/scaling.md).
FITTED = ("full", "none")
TENSOR = (1, 2, 4)  # sizes of the tensor axis to try; fsdp takes the rest of the devices
FSDP = 16  # devices among which a state is divided: of more, the shards are slivers
UNSURE = 1.3  # an estimate above what fits by no more than this is still compiled
Found = tuple[ConfigDict, Plan]


def search(config: ConfigDict, compiled: Callable[[ConfigDict], Plan], devices: int,
           start: int) -> Found:
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
    best: Found | None = None
    failures: list[DoesNotFit] = []

    def attempt(tensor: int, policy: str, batch: int) -> Found | None:
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
        print(f"{line}fits, peak {gib(plan.peak)}, step at least {plan.seconds:.3f} s", flush=True)
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
        best = min(best, found, key=lambda pair: pair[1].seconds)
    return best


class NothingFits(ConfigError):
    """No way to compute a config's step on some hardware; the message says why, in one line."""


class Candidate(NamedTuple):
    """How a step may be computed; its batch and its numbers are the config's all the same."""

    mesh: dict[str, int]
    remat: str
    accumulation: int

    def of(self, config: ConfigDict) -> ConfigDict:
        """A copy of the config that computes it so."""
        config = config.copy_and_resolve_references()
        config.mesh.update(self.mesh)
        config.model.remat.update(dict.fromkeys(MODULES, self.remat))
        if "accumulation" in config.task:
            config.task.accumulation = self.accumulation
        return config

    def __str__(self) -> str:
        mesh = " x ".join(f"{axis} {size}" for axis, size in self.mesh.items())
        return f"mesh {mesh}, remat {self.remat}, micro-batches {self.accumulation}"


def fit(config: ConfigDict, topology: Topology, needs: Needs,
        compiled: Callable[[ConfigDict], Plan]) -> Found:
    """The shortest step of the config's own batches that leaves the chip some memory.

    Estimates say what is compiled: with the heaviest remat the fewest micro-batches that fit, and
    then the lightest. What the compiler says corrects the estimates of the others. Each is reported
    on a line.

    Args:
      config: its mesh, remat and accumulation are replaced.
      topology: to fit; a step may take `chip.usable` bytes.
      needs: of the config.
      compiled: the plan of a config; raises DoesNotFit.

    Returns:
      The config and its plan.

    Raises:
      NothingFits: on no mesh.
    """
    for mesh in meshes(config, topology):
        best = _on_mesh(config, topology, needs, compiled, mesh)
        if best:
            return best
    raise _too_much(config, topology, needs, mesh)


def guess(config: ConfigDict, topology: Topology, needs: Needs) -> tuple[Candidate, float]:
    """What `fit` should find, by estimates alone, and the bytes of a device.

    Raises:
      NothingFits: on no mesh.
    """
    for mesh in meshes(config, topology):
        for count in micro_batches(config, mesh):
            for policy in reversed(FITTED):
                peak = needs.peak(mesh, policy, count)
                if peak <= topology.chip.usable:
                    return Candidate(mesh, policy, count), peak
    raise _too_much(config, topology, needs, mesh)


def _too_much(config: ConfigDict, topology: Topology, needs: Needs,
              mesh: dict[str, int]) -> NothingFits:
    last = micro_batches(config, mesh)[-1]
    least = needs.peak(mesh, FITTED[0], last)
    return NothingFits(
        f"nothing fits {topology.name}: with full remat and {last} micro-batches, "
        f"{examples(config, mesh, last)} a device, a step takes about {gib(least)} of "
        f"{gib(topology.chip.usable)} that a recipe may use; take more devices, or fewer frames")


def _on_mesh(config: ConfigDict, topology: Topology, needs: Needs,
             compiled: Callable[[ConfigDict], Plan], mesh: dict[str, int]) -> Found | None:
    usable, correction, best = topology.chip.usable, 1.0, None
    counts = micro_batches(config, mesh)
    for policy in FITTED:
        tried: dict[int, bool] = {}
        while (count := _next(needs, mesh, policy, counts, tried, usable / correction)):
            candidate = Candidate(mesh, policy, count)
            used, found = _attempt(candidate, config, usable, compiled)
            tried[count] = found is not None
            correction = used / needs.peak(mesh, policy, count)
            if found:
                best = min(filter(None, (best, found)), key=lambda pair: pair[1].seconds)
        if not best:
            return None
        if needs.features:  # a lighter remat saves less than more micro-batches cost
            counts = [count for count in counts if count <= best[0].task.accumulation]
    return best


def _next(needs: Needs, mesh: dict[str, int], policy: str, counts: list[int],
          tried: dict[int, bool], room: float) -> int:
    """Micro-batches to compile next, the fewest that may fit; 0 for none that is worth it."""
    at_least = max((count for count, fits in tried.items() if not fits), default=0)
    below = min((count for count, fits in tried.items() if fits), default=math.inf)
    open_ = [count for count in counts if at_least < count < below]
    fitting = [count for count in open_ if needs.peak(mesh, policy, count) <= room]
    if fitting:
        return fitting[0]
    unsure = policy == FITTED[0] and open_ and not any(tried.values())
    return open_[-1] if unsure and needs.peak(mesh, policy, open_[-1]) <= UNSURE * room else 0


def _attempt(candidate: Candidate, config: ConfigDict, usable: float,
             compiled: Callable[[ConfigDict], Plan]) -> tuple[float, Found | None]:
    """The bytes that a candidate takes, and it with its plan if it fits."""
    trial = candidate.of(config)
    try:
        plan = compiled(trial)
    except DoesNotFit as error:
        print(f"{candidate}: {gib(error.used)}, does not fit", flush=True)
        return error.used, None
    fits = plan.peak <= usable
    print(f"{candidate}: peak {gib(plan.peak)}, " + (
        f"step at least {plan.seconds:.3f} s" if fits else f"more than {gib(usable)}"), flush=True)
    return plan.peak, (trial, plan) if fits else None


def meshes(config: ConfigDict, topology: Topology) -> Iterator[dict[str, int]]:
    """Meshes for the config's batches, the state divided among few devices first, then among more.

    Raises:
      NothingFits: the devices cannot share the batches.
    """
    batch = math.gcd(*(stream.batch_size for stream in config.data.streams.values()))
    for tensor in TENSOR:
        ways, rest = divmod(topology.size, tensor)
        if rest or ways % topology.slices or config.model.heads % tensor or batch % ways:
            continue
        inside = ways // topology.slices
        for fsdp in dict.fromkeys((math.gcd(inside, FSDP), inside)):
            yield dict(data=ways // fsdp, fsdp=fsdp, tensor=tensor)
        return
    sizes = ", ".join(f"{name} {stream.batch_size}" for name, stream in config.data.streams.items())
    raise NothingFits(
        f"nothing fits {topology.name}: {topology.size} devices cannot share the config's batches "
        f"({sizes}), also where up to {TENSOR[-1]} compute an example together; take fewer devices")


def micro_batches(config: ConfigDict, mesh: dict[str, int]) -> list[int]:
    """Numbers of micro-batches that the batches can be computed in, from 1 on."""
    ways, counts = mesh["data"] * mesh["fsdp"], [1]
    sizes = [stream.batch_size for stream in config.data.streams.values()]
    while "accumulation" in config.task and not any(size % (2 * counts[-1] * ways)
                                                    for size in sizes):
        counts.append(2 * counts[-1])
    return counts


def examples(config: ConfigDict, mesh: dict[str, int], accumulation: int) -> str:
    """What a device computes at once: "image 16, text 16"."""
    ways = mesh["data"] * mesh["fsdp"] * accumulation
    return ", ".join(f"{name} {stream.batch_size // ways}"
                     for name, stream in config.data.streams.items())
