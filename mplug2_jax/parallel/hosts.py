"""Runs of several processes: how they begin, agree on what they run, and end together.

`addresses` says how they find each other, `watch` how none waits for another that will never come.
"""

import importlib.metadata
import itertools
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from mplug2_jax.contracts import exits
from mplug2_jax.contracts.options import flat
from mplug2_jax.parallel.addresses import HostError, check_address, given_address, in_cluster
from mplug2_jax.parallel.ending import give_up
from mplug2_jax.parallel.signals import SIGNALS
from mplug2_jax.parallel.stopping import Stopping
from mplug2_jax.parallel.watch import PERIOD, Watch

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")
_T = TypeVar("_T")
_sayings = itertools.count()  # of process 0 to the others
_watch: Watch | None = None  # of this process, as `jax.distributed`'s state is
_patience = 300.0  # seconds from this process to the last one, where they begin


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
    if processes == 1:
        return
    given = given_address(coordinator, processes, process)
    if given is None and not in_cluster():
        return
    deadline = time.monotonic() + join_timeout
    if given:
        check_address(given[0], given[2], join_timeout)
    # JAX aborts, with a stack trace, where time runs out: these are to have their say before.
    late = threading.Timer(max(deadline - time.monotonic(), 5), _too_late,
                           (coordinator, processes, join_timeout))
    late.start()
    try:
        jax.distributed.initialize(
            coordinator, processes, process,
            cluster_detection_method="deactivate" if given else None,
            initialization_timeout=join_timeout + 60, heartbeat_timeout_seconds=lost_after + 60,
            shutdown_timeout_seconds=lost_after + 60)
        global _watch, _patience
        _watch, _patience = _watch_run(lost_after), join_timeout
        SIGNALS.install()  # JAX's preemption service took SIGTERM, and hears nothing else
        _watch.meet()
    except HostError:
        raise
    except (RuntimeError, ValueError) as error:  # ValueError where no cluster says its processes
        advice = "" if given else (": give --processes=1 for this process alone, or all of "
                                   "--coordinator, --processes and --process")
        raise HostError(f"the processes cannot come together: {error}{advice}") from error
    finally:
        late.cancel()


def _watch_run(lost_after: int) -> Watch:
    """The watch over the run that `jax.distributed.initialize` has joined."""
    # JAX has no public name for the key-value store, nor for the coordinator's address and this
    # process's number that it found on a cluster: `jax.process_index()` would start the devices,
    # which waits for all processes, before `meet` has seen that they are of one run.
    state: Any = distributed.global_state
    return Watch(state.client, state.process_id, state.num_processes, state.coordinator_address,
                 lost_after)


def _too_late(coordinator: str | None, processes: int | None, timeout: int) -> None:
    """Ends a process that still waits for others to come."""
    give_up(exits.WRONG, f"of {processes or 'the'} processes, not all came to "
            f"{coordinator or 'the coordinator'} in {timeout} s (--join_timeout): start all of "
            "them, each with its own --process and the same --processes")


def stopping(grace: float) -> Stopping:
    """Whether and where the run stops by a signal to any of its processes, within so many seconds.
    """
    service = distributed.global_state.preemption_sync_manager is not None
    return Stopping(grace, _watch, service and _watch is not None)


def this() -> str:
    """This process in words: `process 1 (its host)`, or its host alone."""
    return socket.gethostname() if _watch is None else _watch.name(_watch.process)


def name(process: int) -> str:
    """A process of the run in words."""
    return this() if _watch is None else _watch.name(process)


def several() -> bool:
    """Whether this process is one of several."""
    return _watch is not None


def machines() -> int:
    """How many hosts the run is on; processes may share one."""
    return 1 if _watch is None else _watch.machines


def is_first() -> bool:
    """Whether this process writes logs and reports: process 0."""
    return _watch is None or _watch.process == 0


def own_file(name: str) -> str:
    """A file's name, on other processes than the first with this one's number before its suffix."""
    stem, suffix = os.path.splitext(name)
    return name if _watch is None or is_first() else f"{stem}.{_watch.process}{suffix}"


def total(count: int) -> int:
    """A host number summed over all processes; all of them must ask."""
    if jax.process_count() == 1:
        return count
    return int(multihost_utils.process_allgather(np.asarray(count)).sum())


def totals(counts: Mapping[str, int]) -> dict[str, int]:
    """Host numbers by name, summed over all processes, which need not have the same names.

    All of them must ask. Where none counts anything, nothing but that is exchanged.
    """
    if jax.process_count() == 1:
        return dict(counts)
    found: Counter[str] = Counter()
    for said in gathered(json.dumps(counts) if counts else ""):
        found.update(json.loads(said or "{}"))
    return dict(sorted(found.items()))


def gathered(text: str) -> list[str]:
    """What each process says, by its number; all of them must ask."""
    if jax.process_count() == 1:
        return [text]
    own = text.encode()
    longest = int(multihost_utils.process_allgather(np.asarray(len(own))).max())
    if not longest:
        return [""] * jax.process_count()
    room = -(-longest // 1024) * 1024  # few shapes, for each is compiled
    rows = multihost_utils.process_allgather(np.frombuffer(own.ljust(room, b"\0"), np.uint8))
    return [row.tobytes().rstrip(b"\0").decode() for row in rows]


def gather(values: Sequence[float]) -> np.ndarray:
    """Host numbers of every process, float64 [processes, n]; all of them must ask."""
    own = np.asarray(values, np.float64)
    if jax.process_count() == 1:
        return own[None]
    # As bytes, for devices would make them float32.
    return multihost_utils.process_allgather(own.view(np.uint8)).view(np.float64)


def agree(facts: Mapping[str, Any]) -> None:
    """Compares what must be the same on all processes: these facts, the versions, the devices.

    Args:
      facts: nested mappings of plain values by name; all processes must ask, within `join_timeout`
        of each other.

    Raises:
      HostError: a process has another value than process 0; the message names the key. Or it does
        not ask in time.
    """
    if _watch is None:
        return
    devices = jax.local_devices()
    facts = {**facts, "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
             "devices": {"kind": devices[0].device_kind, "on each process": len(devices)}}
    own = dict(flat(facts))
    first, *others = map(json.loads, _watch.exchange("facts", json.dumps(own), _patience))
    for process, other in enumerate(others, 1):
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                raise HostError(f"{key} is {other.get(key)!r} on {_watch.name(process)}, but "
                                f"{first.get(key)!r} on {_watch.name(0)}: start all processes with "
                                "the same config, code, data and versions")


def require_shared(folder: Path) -> None:
    """Raises HostError where `folder`, which all processes have, is not the same for all."""
    if _watch is None:
        return
    mark = folder / f".process-0-{_watch.exchange('mark', str(time.time_ns()))[0]}"
    if is_first():
        mark.write_text("")
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


def said_by_first(found: _T) -> _T:
    """What process 0 has found, plain values, on all processes, whose main threads must ask."""
    return json.loads(word_of_first(f"said/{next(_sayings)}", json.dumps(found)))


def require_same(what: str, seen: str) -> None:
    """Raises HostError where a process sees something else there than process 0 does.

    Args:
      what: for the message.
      seen: some word for what this process sees; "" for nothing.
    """
    if _watch is None:
        return
    first, *others = _watch.exchange("seen", seen)
    for process, other in enumerate(others, 1):
        if other != first:
            found = "something else than" if other else "nothing where there is something for"
            raise HostError(f"{what}: {_watch.name(process)} sees {found} {_watch.name(0)}: "
                            "give a path that all hosts share, or the same copies")


def said_by_each(word: str) -> list[str]:
    """What each process says, by its number, however late it comes; all must ask.

    No devices are used, whose networks do not wait for hours.
    """
    return [word] if _watch is None else _watch.exchange("word", word)


def claim(what: str) -> bool:
    """Whether this process is the first of the run that asks for it, from any thread."""
    return _watch is None or _watch.put(f"claimed/{what}", str(_watch.process))


def word_of_first(key: str, word: str) -> str:
    """What process 0 says under a key that comes once; from any thread, the others wait for it."""
    if _watch is None:
        return word
    if _watch.process == 0:
        _watch.put(key, word)
        return word
    return _watch.get(key)


def leave() -> None:
    """The good end: waits for the others to come here, and ends the watch."""
    if _watch is not None:
        _watch.barrier("end")
        _watch.stop()


def fail(message: str, code: int) -> None:
    """Tells the others why this process ends and ends it; returns where there are no others."""
    if _watch is not None:
        _watch.fail(message, code)


def await_loss() -> None:
    """After an error that may come of losing another process: gives the watch time to say which.

    Returns where nothing was lost.
    """
    if _watch is not None:
        time.sleep(_watch.lost_after + 3 * PERIOD)
