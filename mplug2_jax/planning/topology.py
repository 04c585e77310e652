"""Hardware by name, and its devices, none of which is here: `v5e:16x16`, `2xv5e:16x16`, `h100:8`.

In front of a chip stands how many slices of TPUs are joined by the slower network between them
(DCN). Nothing runs on the devices: programs are compiled for them.
"""

import dataclasses
import importlib.util
import math
import os
import pkgutil
import re

import jax
from jax.experimental import topologies

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.planning.chips import CHIPS, Chip

_NAME = re.compile(r"(?:(\d+)x)?([a-z]\w*):(\d+(?:x\d+)*)(_twisted)?")
# What differs between GPUs for their compiler: cores, bytes of L2, GHz, compute capability. Of
# NVIDIA's data sheets and as their drivers say.
_GPUS = {"h100": (132, 52_428_800, 1.98, 9), "h200": (132, 52_428_800, 1.98, 9),
         "b200": (148, 132_644_864, 1.965, 10), "gb200": (152, 135_528_448, 2.062, 10)}
# Nothing can be timed on a GPU that is not there, and without timing Triton finds no tile sizes for
# matrix products: cuBLAS computes them.
GPU_OPTIONS: dict[str, str | bool] = {"xla_gpu_autotune_level": "0",
                                      "xla_gpu_enable_triton_gemm": "False"}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices that a program is compiled for.

    Attributes:
      name: as it is written.
      chip: each of them.
      slices: of TPUs, with the slower network between them.
      shape: chips of a slice along each axis of its network; GPUs of a machine.
      twisted: whether the ends of a slice's axes are joined with an offset.
    """

    name: str
    chip: Chip
    slices: int
    shape: tuple[int, ...]
    twisted: bool = False

    @property
    def size(self) -> int:
        """Devices in all."""
        return self.slices * math.prod(self.shape)

    @property
    def key(self) -> str:
        """The chip's name in `CHIPS`."""
        return next(name for name, chip in CHIPS.items() if chip is self.chip)


def parse_topology(name: str, flag: str = "--topology") -> Topology:
    """The topology of that name.

    Args:
      name: such as "v5e:16x16".
      flag: that it was given by, for the message.

    Raises:
      ConfigError: not a name of that form, or of another chip.
    """
    found = _NAME.fullmatch(name)
    key, slices = "", 0
    shape: tuple[int, ...] = ()
    if found:
        key, shape = found[2], tuple(map(int, found[3].split("x")))
        slices = int(found[1] or 1)
    gpus = [key for key, chip in CHIPS.items() if chip.is_gpu]
    if (not found or key not in CHIPS or not all(shape) or not slices
            or (key in gpus and (len(shape) > 1 or found[4]))):
        raise ConfigError(
            f"{flag}={name}: expected CHIP:AxB or CHIP:AxBxC, the chip one of "
            + ", ".join(key for key in CHIPS if key not in gpus) + "; or GPU:COUNT, the GPU one of "
            + ", ".join(gpus) + "; several slices as 2xCHIP:AxB")
    if slices > 1 and not CHIPS[key].dcn_bandwidth:
        raise ConfigError(f"{flag}={name}: the network between several {key}:... is not known "
                          "here; give one")
    return Topology(name, CHIPS[key], slices, shape, bool(found[4]))


def devices_of(topology: Topology) -> list[jax.Device]:
    """Its devices; nothing of them is needed on this machine.

    Raises:
      ConfigError: no such topology, or its compiler is not installed.
    """
    return _gpus(topology) if topology.chip.is_gpu else _tpus(topology)


def _tpus(topology: Topology) -> list[jax.Device]:
    # This machine is no TPU host: ask nobody what it is, and take no lock on its chips.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, object] = {}
    if topology.key == "v4":
        # Its two cores are one device, as on real pods; libtpu's default for a description is two.
        options["chip_config_name"] = "megacore"
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    one_slice = f"{topology.key}:" + "x".join(map(str, topology.shape)) + (
        "_twisted" * topology.twisted)
    try:
        return topologies.get_topology_desc(
            topology_name=one_slice, platform="tpu", **options).devices
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--topology={topology.name}: {reason} (it needs libtpu, of "
                          "requirements/dev.txt, and a slice that exists)") from None


def _gpus(topology: Topology) -> list[jax.Device]:
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there is no driver here
    if not gpu_compiler():
        raise ConfigError(f"--topology={topology.name}: no compiler for GPUs is installed; "
                          "`make plan-gpu` makes an environment that has it, .venv-gpu")
    jax.devices("cpu")  # with its backends JAX loads the plugin, that is the compiler
    return topologies.get_topology_desc(
        topology_name=topology.key, platform="cuda",
        topology=f"1x1x{topology.shape[0]}",
        target_config=_gpu_target(topology)).devices


def gpu_compiler() -> bool:
    """Whether a compiler for GPUs is installed: JAX's plugin for CUDA."""
    return any(one.name.startswith("xla_cuda") for path in getattr(
        importlib.util.find_spec("jax_plugins"), "submodule_search_locations", ())
        for one in pkgutil.iter_modules([path]))


def _gpu_target(topology: Topology) -> str:
    """What XLA is told of a GPU: a `GpuTargetConfigProto` as text."""
    cores, cache, clock, capability = _GPUS[topology.key]
    chip = topology.chip
    limits = dict(
        threads_per_block_limit=1024, threads_per_warp=32, shared_memory_per_block=49_152,
        shared_memory_per_block_optin=232_448, shared_memory_per_core=233_472,
        threads_per_core_limit=2048, core_count=cores, fpus_per_core=128,
        block_dim_limit_x=2_147_483_647, block_dim_limit_y=65_535, block_dim_limit_z=65_535,
        memory_bandwidth=int(chip.hbm_bandwidth), l2_cache_size=cache, clock_rate_ghz=clock,
        device_memory_size=int(chip.hbm), registers_per_core_limit=65_536,
        registers_per_block_limit=65_536)
    told = " ".join(f"{key}: {value}" for key, value in limits.items())
    return (f"gpu_device_info {{ {told} cuda_compute_capability {{ major: {capability} }} }} "
            'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 } '
            f'device_description_str: "{chip.kind}"')
