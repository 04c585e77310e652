"""Compiles the train step of a config for devices that are not there, and reads what it takes."""

import dataclasses
import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import batch_sharding, make_mesh
from mplug2_jax.planning.chips import GIB, Chip
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.planning.hlo import Program
from mplug2_jax.planning.shapes import batch_shapes, planned
from mplug2_jax.planning.topology import GPU_OPTIONS, Topology, devices_of
from mplug2_jax.tasks import Task
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state
from mplug2_jax.training.step import make_train_step

LARGEST = 3  # buffers that are named where the program does not fit


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a step takes on every device, unless said otherwise.

    Attributes:
      chip: what it was compiled for.
      batches: examples a step of every stream, over all devices.
      mesh: sizes of its axes.
      parameters: of the model, their number.
      sharded: share of their bytes that is split.
      arguments, temporaries: bytes of HBM: state and batch; all else, gaps included.
      peak: bytes of HBM in all, with the program itself and results that take no argument's place.
      live: bytes of the buffers that are in use at the worst time, on-chip memory included, without
        the gaps between them.
      model_flops: of the step on all devices, by the convention of `planning.flops`.
      executed_flops: with what remat and accumulation compute again, and the teacher's, on all
        devices.
      collectives: bytes that a device sends in a step to others of its slice, by kind.
      axes: the same bytes by the axes of the mesh, and what goes to other "slices".
      dcn: bytes that a device sends in a step to other slices.
      launches: instructions that a step runs, by kind, of a GPU's each a kernel or more.
      traffic: bytes that a device reads from and writes to HBM in a step.
      lower_seconds, compile_seconds: of this machine.
      text: the compiled program.
    """

    chip: Chip
    batches: dict[str, int]
    mesh: dict[str, int]
    parameters: int
    sharded: float
    arguments: int
    temporaries: int
    peak: int
    live: int
    model_flops: int
    executed_flops: int
    collectives: dict[str, float]
    axes: dict[str, float]
    dcn: float
    launches: dict[str, int]
    traffic: int
    lower_seconds: float
    compile_seconds: float
    text: str = dataclasses.field(repr=False)

    @property
    def bounds(self) -> dict[str, float]:
        """Seconds that a step takes at least, by what bounds it."""
        bounds = {"compute": self.executed_flops / self.devices / self.chip.flops,
                  "memory": self.traffic / self.chip.hbm_bandwidth,
                  "interconnect": sum(self.collectives.values()) / self.chip.ici_bandwidth}
        return bounds | ({"dcn": self.dcn / self.chip.dcn_bandwidth} if self.dcn else {})

    @property
    def devices(self) -> int:
        """Of the mesh."""
        return math.prod(self.mesh.values())

    @property
    def bound(self) -> str:
        """What takes longest of `bounds`."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    @property
    def seconds(self) -> float:
        """That a step takes at least."""
        return self.bounds[self.bound]

    @property
    def mfu(self) -> float:
        """Share of the devices' peak FLOP/s that the model's FLOPs have at most."""
        return self.model_flops / self.devices / self.chip.flops / self.seconds

    def table(self) -> str:
        """The figures as lines of text."""
        return "\n".join(f"{name:<24}{value}" for name, value in {
            "devices": f"{self.devices} x {self.chip.kind}, mesh " + " x ".join(
                f"{axis} {size}" for axis, size in self.mesh.items()),
            "examples a step": ", ".join(f"{n} {size:,}" for n, size in self.batches.items()),
            "parameters": f"{self.parameters:,}, {100 * self.sharded:.2f}% of their bytes sharded",
            "HBM a device": f"peak {gib(self.peak)} of {gib(self.chip.hbm)}: arguments "
                            f"{gib(self.arguments)}, temporaries {gib(self.temporaries)}; "
                            f"live {gib(self.live)}",
            "model FLOPs a step": f"{self.model_flops:.4g} (matrix products, multiply-add = 2, "
                                  "3 x forward)",
            "executed FLOPs a step": f"{self.executed_flops:.4g} (with recomputation, teacher)",
            "collectives a device": f"{gib(sum(self.collectives.values()))} a step: " + (
                listed(self.collectives) or "none"),
            **({"along the mesh": listed(self.axes)} if self.axes else {}),
            **({"between slices": f"{gib(self.dcn)} a device, a step"} if self.dcn else {}),
            **({"launches a step": ", ".join(
                f"{kind} {count:,}" for kind, count in [*self.launches.items()][:LARGEST])}
               if self.chip.is_gpu else {}),
            "HBM traffic a device": f"{gib(self.traffic)} a step",
            "step time at least": f"{self.seconds:.3f} s, by {self.bound}: " + ", ".join(
                f"{name} {seconds:.3f} s" for name, seconds in self.bounds.items())
            + f"; MFU at most {100 * self.mfu:.0f}%",
            "compiled in": f"{self.compile_seconds:.0f} s, after {self.lower_seconds:.0f} s of "
                           "tracing",
        }.items())


class DoesNotFit(Exception):
    """The program takes more memory than a device has; the message says how much and for what.

    Attributes:
      used, limit: bytes of HBM.
      buffers: the largest, (bytes, shape, where it comes from).
    """

    def __init__(self, used: float, limit: float, buffers: list[tuple[float, str, str]]):
        self.used, self.limit, self.buffers = used, limit, buffers[:LARGEST]
        named = "the largest buffers:" if buffers else "the compiler names no buffers of so much"
        lines = [f"does not fit: {gib(used)} of {gib(limit)} HBM a device, {gib(used - limit)} too "
                 f"much; {named}"]
        lines += [f"  {gib(size)}  {shape}  {source}" for size, shape, source in self.buffers]
        super().__init__("\n".join(lines))


def gib(size: float) -> str:
    """Bytes as "1.25 GiB"."""
    return f"{size / GIB:.2f} GiB"


def listed(sizes: Mapping[str, float]) -> str:
    """Bytes by name as "all-gather 1.25 GiB, all-reduce 0.50 GiB"."""
    return ", ".join(f"{name} {gib(size)}" for name, size in sizes.items())


def with_batch(config: ConfigDict, global_batch: int) -> ConfigDict:
    """A copy whose largest stream has this batch, the others in proportion.

    Raises:
      ConfigError: a stream's batch would be no whole number.
    """
    config = config.copy_and_resolve_references()
    largest = max(stream.batch_size for stream in config.data.streams.values())
    for name, stream in config.data.streams.items():
        if stream.batch_size * global_batch % largest:
            raise ConfigError(f"--global_batch={global_batch}: stream {name} has "
                              f"{stream.batch_size} examples to the largest stream's {largest}, "
                              "and would have no whole number")
        stream.batch_size = stream.batch_size * global_batch // largest
    return config


def batch_on(task: Task, streams: Mapping[str, Stream],
             mesh: jax.sharding.Mesh) -> dict[str, dict[str, Any]]:
    """What the data pipeline gives a step, as shapes on the mesh."""
    task.check_mesh(streams, mesh)
    where = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
                        batch_shapes(task, streams))


def state_shapes(config: ConfigDict) -> tuple[Task, Mapping[str, Stream], Any, Any]:
    """The config's task, its streams, its optimizer, and the shapes of the train state.

    Raises:
      ConfigError: a config that cannot be run.
    """
    task, streams = planned(config)
    optimizer, _ = make_optimizer(config.optimizer)
    return task, streams, optimizer, jax.eval_shape(lambda: create_state(
        task, optimizer, config.seed, config.optimizer.ema_decay > 0,
        spike_window=config.guard.spike_window))


def compile_plan(config: ConfigDict, topology: Topology) -> Plan:
    """Compiles the config's step for a topology.

    Raises:
      ConfigError: the config, the mesh and the topology do not go together.
      DoesNotFit: the program runs out of memory.
    """
    task, streams, optimizer, shapes = state_shapes(config)
    mesh = make_mesh(**config.mesh, devices=devices_of(topology))
    state = sharding.with_places(shapes, mesh)
    batch = batch_on(task, streams, mesh)
    step = make_train_step(task, optimizer, shapes, mesh, config.seed, config.optimizer.frozen,
                           config.optimizer.ema_decay)

    start = time.perf_counter()
    lowered = step.lower(state, batch)
    lowered_at = time.perf_counter()
    try:
        compiled = lowered.compile(GPU_OPTIONS if topology.chip.is_gpu else None)
    except jax.errors.JaxRuntimeError as error:
        raise out_of_memory(str(error)) from None
    compiled_at = time.perf_counter()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and text is not None, "the compilers of TPUs and GPUs say both"
    key = jax.eval_shape(lambda: jax.random.key(0))
    plan = Plan(
        chip=topology.chip, mesh=dict(mesh.shape),
        batches={name: stream.batch_size for name, stream in config.data.streams.items()},
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(shapes.params)),
        sharded=sharding.sharded_share(shapes.params, mesh),
        arguments=memory.argument_size_in_bytes, temporaries=memory.temp_size_in_bytes,
        peak=(memory.argument_size_in_bytes + memory.temp_size_in_bytes
              + memory.output_size_in_bytes - memory.alias_size_in_bytes
              + memory.generated_code_size_in_bytes), live=memory.peak_memory_in_bytes,
        model_flops=3 * count_flops(task.loss, shapes.params, batch, key),
        executed_flops=count_flops(step.jitted.__wrapped__, state, batch),
        **sent(Program(text), dict(mesh.shape), topology),
        lower_seconds=lowered_at - start, compile_seconds=compiled_at - lowered_at, text=text)
    if plan.peak > topology.chip.hbm:  # the compiler of GPUs says nothing of it
        raise DoesNotFit(plan.peak, topology.chip.hbm, [])
    return plan


def sent(program: Program, mesh: Mapping[str, int], topology: Topology) -> dict[str, Any]:
    """The fields of a `Plan` that are read from its program, which is that of one slice."""
    inside = dict(mesh) | {"data": mesh["data"] // topology.slices}
    kinds: defaultdict[str, float] = defaultdict(float)
    axes: defaultdict[str, float] = defaultdict(float)
    for collective in program.collectives():
        axes[collective.axes(inside)] += collective.moved
        if not collective.outside:
            kinds[collective.kind] += collective.moved
    return dict(collectives=most_first(kinds), axes=most_first(axes), dcn=axes.get("slices", 0.0),
                launches=program.launches(), traffic=program.traffic())


def most_first(sizes: Mapping[str, float]) -> dict[str, float]:
    """Bytes by name, in their order."""
    return dict(sorted(sizes.items(), key=lambda item: item[1], reverse=True))


UNITS = {"": 1, "K": 2 ** 10, "M": 2 ** 20, "G": 2 ** 30, "T": 2 ** 40}
_USED = re.compile(r"Used ([\d.]+)([KMGT]?)\S* of ([\d.]+)([KMGT]?)\S* hbm")
# Said before buffers have places, where temporaries alone are far too much.
_FAR = re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM "
                  r"\(([\d.]+)([KMGT]?)\)")
_BUFFER = re.compile(r"Size: ([\d.]+)([KMGT]?).*?(?=\n\s*\d+\. Size:|\n\s*=====|\Z)", re.DOTALL)


def out_of_memory(message: str) -> Exception:
    """The compiler's message that a program does not fit, as a `DoesNotFit`; others as they are."""
    used = _USED.search(message) or _FAR.search(message)
    if used is None:
        return RuntimeError(message)

    def field(name, text):
        found = re.search(rf"{name}: (.*)", text)
        return found[1].strip() if found else ""

    buffers = []
    for found in _BUFFER.finditer(message):
        source = field("Operator", found[0])
        if named := re.search(r'op_name="([^"]*)"', source):
            source = named[1]
        buffers.append((float(found[1]) * UNITS[found[2]], field("Shape", found[0]).split("{")[0],
                        source or field("XLA label", found[0])[:100]))
    return DoesNotFit(float(used[1]) * UNITS[used[2]], float(used[3]) * UNITS[used[4]],
                      sorted(buffers, reverse=True))
