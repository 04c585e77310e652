"""Accelerators that this machine has, found without JAX, and whether JAX uses them.

A run that falls back to the CPU takes a thousand times as long and says so in one warning among
many: it stops instead, with the line to run.
"""

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import jax

from mplug2_jax.contracts.machine import MachineError
from mplug2_jax.parallel import hosts

_GOOGLE = "0x1ae0"  # vendor on the PCI bus; its network cards and disks are of other classes
_NETWORK, _STORAGE = "0x02", "0x01"  # how those classes begin
_CUDA_13 = 580  # the first driver that runs it; CUDA 12 runs from 525 on
SECONDS = 20  # that `nvidia-smi` may take; with many GPUs that nobody uses it starts each
ROOT = Path("/")
_RUN_TOO = {"cuda13": ("cuda12",)}  # by extra, others that drivers for it run
_PLUGINS = {"cuda12": "jax_cuda12_plugin", "cuda13": "jax_cuda13_plugin", "tpu": "libtpu"}


class Accelerator(NamedTuple):
    """What is in the machine.

    Attributes:
      kind: `TPU` or `GPU`.
      what: in words, as far as is known.
      extra: of `requirements/`, what to install for it.
    """

    kind: str
    what: str
    extra: str


def find(root: Path = ROOT) -> Accelerator | None:
    """The TPU or the GPU in this machine, without JAX; None where there is none to be seen.

    A GPU that `CUDA_VISIBLE_DEVICES` hides counts as none.

    Args:
      root: of the file system.
    """
    return _tpu(root) or _gpu(root)


def check(root: Path = ROOT) -> None:
    """Starts JAX's devices and sees that they are those that were asked for, or are there.

    `JAX_PLATFORMS=cpu` asks for the CPU. Comes after `hosts.join`, before anything uses devices.

    Raises:
      MachineError: JAX cannot start what it was asked for, or would use the CPU of a machine that
        has a TPU or a GPU.
    """
    asked = jax.config.values["jax_platforms"] or ""
    first, reason = asked.partition(",")[0], "JAX would use the CPU"
    try:
        # Of several platforms that were asked for, JAX takes one that it has, and says nothing.
        if jax.default_backend() != "cpu" or first == "cpu":
            return
    except (RuntimeError, AssertionError) as error:  # a bare one, where it knows none of them
        if first == "cpu" or "DEADLINE_EXCEEDED" in str(error):  # another process did not come
            raise
        reason = _reason(error) or "JAX has no package for it"
    found = find(root)
    if first:
        raise MachineError(f"JAX_PLATFORMS={asked}: {reason}: {_what_to_do(_extra(first, found))}")
    if found:
        raise MachineError(f"there is a {found.kind} in this machine ({found.what}), but {reason}: "
                           f"{_what_to_do(found.extra)}")


def _reason(error: BaseException) -> str:
    """What JAX says, in one line and without its own advice."""
    return " ".join(str(error).split()).partition(" (set JAX_PLATFORMS")[0]


def describe() -> str:
    """What the run is on: the version of JAX, its backend, devices, processes and hosts."""
    devices, processes, machines = jax.devices(), jax.process_count(), hosts.machines()
    return (f"JAX {jax.__version__}, backend {jax.default_backend()}, {devices[0].device_kind}; "
            f"devices: {len(devices)}; processes: {processes}; hosts: {machines}")


def _extra(asked: str, found: Accelerator | None) -> str:
    """What to install for a platform that was asked for; empty where nothing here is."""
    if asked == "tpu":
        return "tpu"
    if asked not in ("cuda", "gpu"):
        return ""
    return found.extra if found and found.kind == "GPU" else "cuda13"


def _what_to_do(extra: str) -> str:
    """The line to run; of a plugin that is there and did not start, the one that says why."""
    cpu = "JAX_PLATFORMS=cpu takes the CPU"
    if not extra:
        return cpu
    found = {name for name, module in _PLUGINS.items() if importlib.util.find_spec(module)}
    set_of = f"pip install -r requirements/{extra}.txt"
    if fitting := sorted(found & {extra, *_RUN_TOO.get(extra, ())}):
        platform = "tpu" if extra == "tpu" else "cuda"
        return (f"{_PLUGINS[fitting[0]]} is installed, and JAX_PLATFORMS={platform} python -c "
                f"'import jax; jax.devices()' says why it does not start; {cpu}")
    if extra == "cuda12" and "cuda13" in found:
        return (f"{_PLUGINS['cuda13']} needs a driver from {_CUDA_13} on: in a new environment, "
                f"run {set_of}; {cpu}")
    return f"run {set_of}; {cpu}"


def _tpu(root: Path) -> Accelerator | None:
    """The chips on the PCI bus, where libtpu finds a device file to open them by."""
    files = [*root.glob("dev/accel[0-9]*"), *root.glob("dev/vfio/[0-9]*")]
    chips = [one for one in root.glob("sys/bus/pci/devices/*") if _read(one / "vendor") == _GOOGLE
             and not _read(one / "class").startswith((_NETWORK, _STORAGE))]
    if not files or not chips:
        return None
    return Accelerator("TPU", f"chips on the PCI bus: {len(chips)}", "tpu")


def _gpu(root: Path) -> Accelerator | None:
    """What `nvidia-smi` lists, or the driver where that is not installed."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return None
    listed = _nvidia_smi()
    if listed is None:
        names = [_field(_read(file / "information"), "Model:")
                 for file in sorted(root.glob("proc/driver/nvidia/gpus/*"))]
        listed = [(name, _read(root / "sys/module/nvidia/version")) for name in names]
    if not listed:
        return None
    name, driver = listed[0]
    major = int(driver.partition(".")[0]) if driver[:1].isdigit() else _CUDA_13
    said = f"{len(listed)} x {name or 'NVIDIA'}" + f", driver {driver}" * bool(driver)
    return Accelerator("GPU", said, "cuda12" if major < _CUDA_13 else "cuda13")


def _nvidia_smi() -> list[tuple[str, str]] | None:
    """Name and driver of each GPU that it lists; None where it cannot be run."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    rows = (line.rpartition(",") for line in done.stdout.splitlines() if "," in line)
    return [(name.strip(), driver.strip()) for name, _, driver in rows]


def _read(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    """What follows a name on its line."""
    found = (line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(name))
    return next(found, "")
