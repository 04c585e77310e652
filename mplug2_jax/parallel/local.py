"""Several processes of one run on this machine, started together and ended together.

    python -m mplug2_jax.launch --processes=4 -- train.py --config=CONFIG --workdir=WORKDIR

Each is told by the environment where process 0 listens, how many there are and which it is, and has
its share of the GPUs and of the processor's cores. What a process prints has its number in front.
Signals go on to all of them, once each.
"""

import argparse
import ctypes
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from mplug2_jax.contracts import exits
from mplug2_jax.parallel.addresses import HostError
from mplug2_jax.parallel.cores import AMONG
from mplug2_jax.parallel.ending import print_error
from mplug2_jax.parallel.signals import ALL

PATIENCE = 15.0  # seconds in which the others end by themselves once one has ended badly
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


class Share(NamedTuple):
    """What one process has.

    Attributes:
      environment: beside this one's.
      cores: of the processor; none for all.
    """

    environment: dict[str, str]
    cores: tuple[int, ...]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in a line."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}: expected --processes=N -- train.py and its flags")
        sys.exit(exits.WRONG)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit code, that of the process which ended first and badly."""
    parser = _Parser(prog="python -m mplug2_jax.launch", allow_abbrev=False,
                     description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument("--devices", type=int, default=0,
                        help="of each process, simulated by the processor: to try a mesh")
    parser.add_argument("command", nargs=argparse.REMAINDER,
                        help="a Python script, or -m and a module, and its flags")
    given = parser.parse_args(arguments)
    command = given.command[given.command[:1] == ["--"]:]
    if not command:
        parser.error("no command")
    try:
        return run([sys.executable, *command], shares(given.processes, given.devices))
    except (HostError, OSError) as error:
        print_error(str(error))
        return exits.WRONG


def shares(processes: int, devices: int = 0) -> list[Share]:
    """The share of each process in this machine.

    Args:
      processes: how many.
      devices: simulated ones of each; 0 for the real ones.

    Raises:
      HostError: the machine cannot be divided among so many.
    """
    if processes < 1 or devices < 0:
        raise HostError(f"--processes={processes} --devices={devices}: expected at least 1 process")
    with socket.create_server(("", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes),
              "PYTHONUNBUFFERED": "1", AMONG: str(processes)}
    if devices:
        flags = f"--xla_force_host_platform_device_count={devices}"
        common |= {"JAX_PLATFORMS": "cpu",
                   "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    gpus = [] if devices else _gpus()
    if len(gpus) % processes:
        raise HostError(f"--processes={processes}: expected a divisor of {len(gpus)}, the GPUs "
                        "here (CUDA_VISIBLE_DEVICES), or --devices to simulate some")
    # JAX has set it where it found TPU chips.
    if not devices and "TPU_ML_PLATFORM" in os.environ and not _on_processor():
        raise HostError("a TPU host runs one process for all of its chips: give the command itself")
    found = []
    for process in range(processes):
        own = common | {"JAX_PROCESS_ID": str(process)}
        if gpus:  # a process that saw all of them would take memory of each
            own["CUDA_VISIBLE_DEVICES"] = ",".join(_part(gpus, process, processes))
        found.append(Share(own, tuple(_part(_cores(), process, processes))))
    return found


def run(command: Sequence[str], given: Sequence[Share], patience: float = PATIENCE) -> int:
    """Runs a process of each share to its end.

    Where one ends badly, the others have `patience` seconds to end by themselves, and are then
    killed: what they wait for will never come.

    Args:
      command: of each.
      given: their shares.
      patience: seconds.

    Returns:
      The exit code: of the first that ended badly, `exits.LOST` only where there is no other.
    """
    running = [_start(command, share) for share in given]
    for number in ALL:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: _tell(running, number))
    lock, ended = threading.Lock(), queue.SimpleQueue[tuple[int, int]]()
    copies = [threading.Thread(target=_copy, args=(pipe, file, number, lock), daemon=True)
              for number, process in enumerate(running)
              for pipe, file in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))]
    waits = [threading.Thread(target=lambda number, process: ended.put((number, process.wait())),
                              args=one, daemon=True) for one in enumerate(running)]
    for thread in (*copies, *waits):
        thread.start()
    code, said = _await(ended, running, patience)
    for thread in copies:
        thread.join(1)  # whom a process leaves behind may hold its output open
    if said:
        print_error(said)
    return code


def _await(ended: "queue.SimpleQueue[tuple[int, int]]", running: Sequence[subprocess.Popen[str]],
           patience: float) -> tuple[int, str]:
    """Waits for all to end; the exit code of all together, and what is to be said of it."""
    bad: list[tuple[int, int]] = []
    deadline, killed = None, False
    for _ in running:
        try:
            number, code = ended.get(
                timeout=None if deadline is None or killed else max(deadline - time.monotonic(), 0))
        except queue.Empty:
            _tell(running, signal.SIGKILL)
            killed = True
            number, code = ended.get()
        if code and not killed:
            bad.append((number, exits.by_signal(-code) if code < 0 else code))
            deadline = deadline or time.monotonic() + patience
    if not bad:
        return exits.DONE, ""
    number, code = next((one for one in bad if one[1] != exits.LOST), bad[0])
    return code, (f"process {number} ended with code {code}: {exits.say(code)}"
                  + "; others that went on were killed" * killed)


def _start(command: Sequence[str], share: Share) -> subprocess.Popen[str]:
    """Starts one process, which ends with this one."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        if library is not None:
            library.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
            if share.cores:
                os.sched_setaffinity(0, share.cores)

    return subprocess.Popen(
        command, env=os.environ | share.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        preexec_fn=prepare)


def _tell(running: Sequence[subprocess.Popen[str]], number: int) -> None:
    """Sends a signal to those that still run."""
    for process in running:
        process.send_signal(number)


def _copy(source: IO[str], to: IO[str], process: int, lock: threading.Lock) -> None:
    """Writes each line of a process, its number in front."""
    with source:  # closed where nobody reads on: then the process hears of it
        for line in source:
            with lock:
                try:
                    to.write(f"[{process}] {line.rstrip()}\n")
                    to.flush()
                except OSError:
                    return


def _part(whole: Sequence[Any], index: int, count: int) -> Sequence[Any]:
    """An equal part of a list; none where there is not one for each."""
    if len(whole) < count:
        return ()
    return whole[index * len(whole) // count:(index + 1) * len(whole) // count]


def _cores() -> Sequence[int]:
    """The processor's cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else ()


def _on_processor() -> bool:
    """Whether JAX is told to use the processor alone."""
    return os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu"


def _gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    if _on_processor():
        return []
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name]
    # A container may see some alone, which count from 0 on there.
    found = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(found))]
