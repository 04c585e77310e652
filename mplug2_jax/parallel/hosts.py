"""Runs of several processes: how they find each other, agree on what they run, and end together.

No process waits for another that will never come. Each tells process 0 every second that it is
there, and looks there whether the run was given up; process 0 gives it up when one fails or falls
silent. That process 0 itself is lost, the others see by its silence. All of this goes through the
key-value store that `jax.distributed` keeps on process 0, beside the network of the devices.
"""

import contextlib
import ctypes
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the key-value store has no public name
from jax.experimental import multihost_utils

PERIOD = 1.0  # seconds between two signs of life
FAREWELL = 10.0  # seconds that a failing process 0 stays for the others to hear of it, at most
LOST = 3  # exit code of a process that ends for what happened to another one
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")
_AGAIN = ("start all processes again by the same command, training goes on from its last "
          "checkpoint")
_VERDICT = "verdict"  # what process 0 sets at the end of the run: why, or "" for a good end
_DAY = 24 * 3600 * 1000  # milliseconds: at a barrier, `_Watch` sees to it that none waits in vain


class HostError(ValueError):
    """Processes that cannot run together; the message says which, and what to do."""


def join(coordinator: str | None, processes: int | None, process: int | None,
         join_timeout: int, lost_after: int) -> None:
    """Makes this process one of several, if the flags or the cluster say so.

    Comes before anything that uses devices. TPU pods and Slurm steps are detected; anywhere else
    the first three are needed.

    Args:
      coordinator: `host:port` of process 0.
      processes: how many; 1 for this one alone, also where a cluster would be detected.
      process: which of them this is.
      join_timeout: seconds to wait for the others.
      lost_after: seconds of silence after which a process counts as lost.

    Raises:
      HostError: the arguments are incomplete, or the processes did not come together.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if processes == 1 or len(missing) == 3 and not in_cluster():
        return
    if missing and len(missing) < 3:
        raise HostError(f"{missing[0]} is missing: outside TPU pods and Slurm, a run of several "
                        f"processes needs all of {', '.join(given)}")
    deadline = time.monotonic() + join_timeout
    if not missing:
        check_address(coordinator, processes, process, join_timeout)
    # A process that is told to end (SIGTERM) ends; the others then go by `lost_after`.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX aborts, with a stack trace, where time runs out: these are to have their say before.
    late = threading.Timer(max(deadline - time.monotonic(), 5), _too_late,
                           (coordinator, processes, join_timeout))
    late.start()
    try:
        jax.distributed.initialize(
            coordinator, processes, process,
            cluster_detection_method=None if missing else "deactivate",
            initialization_timeout=join_timeout + 60, heartbeat_timeout_seconds=lost_after + 60,
            shutdown_timeout_seconds=lost_after + 60)
        global _watch
        _watch = _Watch(lost_after)
        _watch.meet()
    except RuntimeError as error:
        raise HostError(f"the processes cannot come together: {error}") from error
    finally:
        late.cancel()


def _too_late(coordinator: str | None, processes: int | None, timeout: int) -> None:
    """Ends a process that still waits for others to come."""
    _print_error(f"of {processes or 'the'} processes, not all came to "
                 f"{coordinator or 'the coordinator'} in {timeout} s (--join_timeout): start all "
                 "of them, each with its own --process and the same --processes")
    _exit(2)


def in_cluster() -> bool:
    """Whether JAX finds the addresses by itself: in a Slurm step of several tasks, on a TPU VM."""
    slurm = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID"} <= os.environ.keys()
    # JAX sets the second where it finds TPU chips.
    return slurm and int(os.environ.get("SLURM_NTASKS", 1)) > 1 or "TPU_ML_PLATFORM" in os.environ


def check_address(coordinator: str, processes: int, process: int, timeout: float) -> None:
    """Waits until process 0 listens at `coordinator`; on process 0, sees that it can.

    Raises:
      HostError: no such address or process, or nothing answers there within `timeout` seconds.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise HostError(f"--coordinator={coordinator}: expected HOST:PORT of process 0")
    if not 0 <= process < processes:
        raise HostError(f"--process={process}: expected 0 to {processes - 1}, for "
                        f"--processes={processes}")
    if process == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise HostError(f"--coordinator={coordinator}: process 0 cannot listen at port {port} "
                            f"({error.strerror}): give all processes another port") from error
        return
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise HostError(
                    f"--coordinator={coordinator}: process 0 did not answer there in {timeout} s "
                    f"({error.strerror or error}): is it running, and is this its address?"
                ) from error
        time.sleep(0.5)


def several() -> bool:
    """Whether this process is one of several."""
    return _watch is not None


def is_first() -> bool:
    """Whether this process writes logs and reports: process 0."""
    return distributed.global_state.process_id == 0


def own_file(name: str) -> str:
    """A file's name, on other processes than the first with this one's number before its suffix."""
    stem, suffix = os.path.splitext(name)
    return name if is_first() else f"{stem}.{distributed.global_state.process_id}{suffix}"


def total(count: int) -> int:
    """A host number summed over all processes; all of them must ask."""
    if jax.process_count() == 1:
        return count
    return int(multihost_utils.process_allgather(np.asarray(count)).sum())


def agree(facts: Mapping[str, Any]) -> None:
    """Compares what must be the same on all processes: these facts, the versions, the devices.

    Args:
      facts: nested mappings of plain values by name; all processes must ask.

    Raises:
      HostError: a process has another value than process 0; the message names the key.
    """
    if not several():
        return
    devices = jax.local_devices()
    facts = {**facts, "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
             "devices": {"kind": devices[0].device_kind, "on each process": len(devices)}}
    own = dict(_flat(facts))
    for process, text in enumerate(_watch.exchange("facts", json.dumps(own))):
        if process == 0:
            first = json.loads(text)
            continue
        other = json.loads(text)
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                raise HostError(f"{key} is {other.get(key)!r} on {_watch.name(process)}, but "
                                f"{first.get(key)!r} on {_watch.name(0)}: start all processes with "
                                "the same config, code, data and versions")


def require_shared(folder: Path) -> None:
    """Raises HostError where `folder`, which all processes have, is not the same for all."""
    if not several():
        return
    mark = folder / f".process-0-{_watch.exchange('mark', str(time.time_ns()))[0]}"
    if is_first():
        mark.touch()
    _watch.barrier("marked")
    deadline = time.monotonic() + 10  # network file systems may take a moment
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    seen = _watch.exchange("seen", "yes" if mark.exists() else "")
    if is_first():
        mark.unlink()
    if "" in seen:
        raise HostError(f"{folder}: {_watch.name(seen.index(''))} does not see what process 0 "
                        "writes there: give a folder that all hosts share")


def leave() -> None:
    """The good end: waits for the others to come here, and ends the watch."""
    if several():
        _watch.barrier("end")
        _watch.stop()


def fail(message: str, code: int) -> None:
    """Tells the others why this process ends and ends it; returns where there are no others."""
    if several():
        _watch.fail(message, code)


def await_loss() -> None:
    """After an error that may come of losing another process: gives the watch time to say which.

    Returns where nothing was lost.
    """
    if several():
        time.sleep(_watch.lost_after + 3 * PERIOD)


def _flat(tree: Mapping[str, Any], prefix: str = ""):
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Watch:
    """Signs of life, and the end of the run where they stop.

    Args:
      lost_after: seconds of silence after which a process counts as lost.
    """

    def __init__(self, lost_after: int):
        state = distributed.global_state
        self.lost_after = lost_after
        self._store = state.client
        self._process, self._count = state.process_id, state.num_processes
        self._stopped, self._ending = threading.Event(), threading.Lock()
        self._code = LOST  # of the end that has begun
        self._rounds = 0
        self._hosts: list[str] = []
        self._heard = time.monotonic()  # when process 0 last answered
        self._threads = [threading.Thread(target=run, daemon=True)
                         for run in (self._follow, self._judge, self._listen)]
        for thread in self._threads:
            thread.start()
        # JAX aborts a process that loses its connection to process 0, within a tenth of a second
        # and from a thread of its own. A handler of Python's `signal` would never run there.
        self._abort_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._on_abort)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._abort_handler)

    def meet(self) -> None:
        """Learns the hosts' names; HostError where a process counts on another number of them."""
        own = {"host": socket.gethostname(), "processes": self._count}
        self._store.key_value_set(f"meet/{self._process}", json.dumps(own))
        for process in range(self._count):
            other = json.loads(self._store.blocking_key_value_get(f"meet/{process}", _DAY))
            if other["processes"] != self._count:
                raise HostError(
                    f"process {process} ({other['host']}) was started as one of "
                    f"{other['processes']} processes, process {self._process} ({own['host']}) as "
                    f"one of {self._count}: start all with the same --processes")
            self._hosts.append(other["host"])

    def name(self, process: int) -> str:
        """`process 3 (its host)`."""
        met = process < len(self._hosts)
        return f"process {process} ({self._hosts[process]})" if met else f"process {process}"

    def exchange(self, name: str, value: str) -> list[str]:
        """Every process's value, in their order; all of them must ask."""
        self._rounds += 1  # names may come again
        key = f"{name}-{self._rounds}"
        self._store.key_value_set(f"{key}/{self._process}", value)
        return [self._store.blocking_key_value_get(f"{key}/{process}", _DAY)
                for process in range(self._count)]

    def barrier(self, name: str) -> None:
        """Waits for all processes to come here."""
        self._rounds += 1
        self._store.wait_at_barrier(f"{name}-{self._rounds}", _DAY)

    def stop(self) -> None:
        """Ends the watch; all processes have come to their good end."""
        self._stopped.set()
        if self._process == 0:
            self._store.key_value_set(_VERDICT, "")
        for thread in self._threads:  # none may come back from a call while Python ends
            thread.join()

    def fail(self, message: str, code: int) -> None:
        """Prints and tells the others why this process ends, and ends it."""
        with self._ending:
            self._code = code
            _print_error(message)
            try:
                self._store.key_value_set(f"failed/{self._process}", message)
                if self._process == 0:
                    self._dismiss(f"{self.name(0)} ended: {message}")
            except RuntimeError:  # nobody there to tell
                pass
            _exit(code)  # JAX's own shutdown would wait for the others

    def _end(self, verdict: str) -> None:
        """Ends this process for what happened to another."""
        with self._ending:
            _print_error(verdict)
            _exit(LOST)

    def _dismiss(self, verdict: str, lost: int = 0) -> None:
        """Process 0 gives up the run; it stays until the others have heard of it."""
        self._store.key_value_set(_VERDICT, verdict, allow_overwrite=True)
        deadline = time.monotonic() + FAREWELL
        while time.monotonic() < deadline:
            gone = dict(self._store.key_value_dir_get("gone/"))
            gone |= dict(self._store.key_value_dir_get("failed/"))
            if len({key.split("/")[1] for key in gone} - {"0"}) >= self._count - 1 - lost:
                break
            time.sleep(PERIOD / 10)

    def _follow(self) -> None:
        """Gives signs of life; on process 0, looks for those of the others."""
        beats, silent_since = {}, {}
        for number in itertools.count():
            if self._stopped.wait(PERIOD):
                return
            try:
                self._store.key_value_set(f"beat/{self._process}", str(number),
                                          allow_overwrite=True)
                if self._process == 0:
                    self._look(beats, silent_since)
            except RuntimeError:  # no answer: `_judge` gives it time
                continue
            self._heard = time.monotonic()

    def _look(self, beats: dict[str, str], silent_since: dict[int, float]) -> None:
        """Process 0's look at the others."""
        for key, message in self._store.key_value_dir_get("failed/"):
            process = int(key.split("/")[1])
            verdict = f"{self.name(process)} ended: {message}"
            self._dismiss(verdict)
            self._end(verdict)
        now, latest = time.monotonic(), dict(self._store.key_value_dir_get("beat/"))
        for process in range(1, self._count):
            beat = latest.get(f"beat/{process}")
            if beat != beats.get(process) or process not in silent_since:
                beats[process], silent_since[process] = beat, now
            elif now - silent_since[process] > self.lost_after:
                verdict = self._lost(process)
                self._dismiss(verdict, lost=1)
                self._end(verdict)

    def _judge(self) -> None:
        """Notices that process 0 answers no more, also while a call to it hangs."""
        while self._process and not self._stopped.wait(PERIOD):
            if time.monotonic() - self._heard > self.lost_after:
                self._end(self._lost(0))

    def _listen(self) -> None:
        """Waits for process 0 to give up the run."""
        while self._process and not self._stopped.is_set():
            try:
                verdict = self._store.blocking_key_value_get(_VERDICT, _DAY)
            except RuntimeError as error:
                if "UNAVAILABLE" in str(error) and not self._stopped.is_set():
                    self._end(f"{self.name(0)} is lost: the connection is closed; {_AGAIN}")
                self._stopped.wait(PERIOD)
                continue
            if not verdict:
                return
            with contextlib.suppress(RuntimeError):  # process 0 did not wait
                self._store.key_value_set(f"gone/{self._process}", "")
            self._end(verdict)

    def _on_abort(self, _: int) -> None:
        """Gives the reason of an abort, where it is that process 0 is gone; else lets it go on."""
        host, _, port = distributed.global_state.coordinator_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError:
            # A thread that is ending this process has said why, and may wait within JAX for what
            # the thread that aborts holds: it is not waited for.
            if self._ending.acquire(timeout=PERIOD):
                self._ending.release()
                self._end(f"{self.name(0)} is lost: the connection is closed; {_AGAIN}")
            _exit(self._code)

    def _lost(self, process: int) -> str:
        return (f"{self.name(process)} is lost: no sign of life for {self.lost_after} s; {_AGAIN}")


def _exit(code: int) -> None:
    """Ends the process at once, with those that prepare its data."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def _print_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


_watch: _Watch | None = None  # of this process, as `jax.distributed`'s state is
