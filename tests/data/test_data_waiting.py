"""Data workers that die, stand still or outlive their parent."""

import os
import signal
import subprocess
import sys
import time
import types

import grain
import pytest
from absl import flags
from commands import ROOT

from data.pipeline import waiting
from data.written import cached
from mplug2_jax import launch
from mplug2_jax.contracts import exits
from mplug2_jax.contracts.errors import DataError

pytestmark = pytest.mark.slow


def workers_of(batches):
    return list(batches._workers)


def endless(workers, **options):
    """Numbers of as many workers, which take a while for each from the eighth on."""
    def make(number):
        time.sleep(0 if number < 8 else 0.3)
        return number

    if not flags.FLAGS.is_parsed():  # Grain reads its own
        flags.FLAGS.mark_as_parsed()
    dataset = grain.MapDataset.range(10**6).map(make).to_iter_dataset(
        grain.ReadOptions(num_threads=0, prefetch_buffer_size=1))
    return waiting.Waited(dataset.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers), waiting.start_worker), **options)


def gone(pid):
    """Whether a process has ended, by itself or waiting for its parent to look."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_worker_that_stands_still_or_dies_is_an_error(monkeypatch):
    """And signals that end a run do not end them; one of two stands still."""
    monkeypatch.setattr(waiting, "SILENT", 2.0)
    idle = []
    batches = endless(2, idle=lambda: idle.append(1))
    assert [next(batches) for _ in range(6)] == list(range(6))
    for _ in range(3):  # longer than `LOOK`, so that all of them are known
        next(batches)
    pids = workers_of(batches)
    assert len(pids) == 2 and idle
    for pid in pids:
        for number in waiting.SIGNALS:
            os.kill(pid, number)
    assert [next(batches) for _ in range(4)] == [9, 10, 11, 12]
    os.kill(pids[0], signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(waiting.SilentWorkers, match="no data worker did anything") as told:
        for _ in range(20):
            next(batches)
    with pytest.raises(SystemExit) as ended:
        launch.fail(told.value)
    assert ended.value.code in exits.RESTART
    assert time.monotonic() - began < 30
    batches.close()
    wait_until(lambda: all(map(gone, pids)))

    batches = endless(1)
    for _ in range(9):
        next(batches)
    (pid,) = workers_of(batches)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(DataError, match="a data worker ended by SIGKILL; the machine may have run"):
        for _ in range(20):
            next(batches)
    assert time.monotonic() - began < 30
    batches.close()


def test_what_is_slow_is_waited_for_and_what_idles_may_end_the_waiting(monkeypatch):
    """In threads, too; the batch that was waited for comes next, none is lost."""
    monkeypatch.setattr(waiting, "SILENT", 0.2)

    def make(number):
        time.sleep(0.8 if number == 2 else 0)
        return number

    class Enough(BaseException):
        pass

    asked = []

    def idle():
        asked.append(1)
        if len(asked) == 1:
            raise Enough

    batches = waiting.Waited(grain.MapDataset.range(4).map(make).to_iter_dataset(
        grain.ReadOptions(num_threads=0, prefetch_buffer_size=1)), idle)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(Enough):
        next(batches)
    assert list(batches) == [2, 3] and len(asked) >= 2
    batches.close()


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_workers_end_with_their_parent(tmp_path):
    script = """
import grain
from data.pipeline import waiting
from data.written import cached

if __name__ == "__main__":
    dataset = grain.MapDataset.range(10**6).to_iter_dataset()
    batches = waiting.Waited(dataset.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=1), waiting.start_worker))
    import multiprocessing, sys, time
    from absl import flags
    flags.FLAGS.mark_as_parsed()
    next(batches)
    print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
    time.sleep(600)
"""
    (tmp_path / "parent.py").write_text(script)
    process = subprocess.Popen([sys.executable, tmp_path / "parent.py"], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    (pid,) = map(int, process.stdout.readline().split())
    process.kill()
    process.wait()
    wait_until(lambda: gone(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_workers_may_wait_for_others_to_be_copied_or_to_go_on(monkeypatch, tmp_path):
    """Stopped by Ctrl-Z or a scheduler, they were so with this process itself."""
    monkeypatch.setenv(cached.FOLDER, str(tmp_path))
    monkeypatch.setattr(waiting, "SILENT", 45.0)
    clock = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock[0])
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        wait_until(lambda: not waiting._ready(sleeper.pid), seconds=float("inf"))
        workers = {sleeper.pid: types.SimpleNamespace(exitcode=None)}
        pace = waiting._Pace()

        def silent_after(seconds):
            for _ in range(seconds):
                clock[0] += 1
                if pace.silent(workers):
                    return True
            return False

        assert not silent_after(40)
        clock[0] += 3600
        assert not silent_after(1) and not silent_after(40)
        assert silent_after(10)
        partial = cached.folder() / "shard" / ".100.partial"
        partial.parent.mkdir(parents=True)
        for written in (1e9, 1e9 + 40):  # by another process, which copies what they wait for
            partial.touch()
            os.utime(partial, (written, written))
            assert not silent_after(40)
        assert silent_after(10)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_what_a_signal_tells_is_said():
    assert "/dev/shm is full" in waiting._how(-signal.SIGBUS)
    assert waiting._how(3).startswith("a data worker ended with code 3; start")
