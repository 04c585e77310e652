"""Where a run's time goes: by a clock of the test's own, and by the real one."""

import json
import logging
import multiprocessing
import time
from types import SimpleNamespace

import numpy as np
import pytest

from data.pipeline import prefetch_to_device
from mplug2_jax.parallel import cores
from mplug2_jax.training import ledger as ledgers
from mplug2_jax.training.ledger import LOST, Ledger
from mplug2_jax.training.runlog import RunLog
from mplug2_jax.training.vigil import AHEAD, Vigil

STEP = 1.0  # second of the devices


class Machine:
    """Devices that take a second a step, data that come at a rate, and the clock of both."""

    def __init__(self, rate=4.0, buffer=2):
        self.now, self._done = 0.0, []
        self._period, self._buffer = STEP / rate, buffer
        self._ready, self._taken = [0.0], []

    def clock(self):
        return self.now

    def free_since(self):
        last = self._done[-1] if self._done else 0.0
        return None if self.now < last else last

    def dispatch(self):
        start = max(self.now, self._done[-1] if self._done else 0.0)
        self._done.append(start + STEP)

    def next(self):
        """Waits for a batch; the next one is begun once there is room for it."""
        self.now = max(self.now, self._ready[-1])
        self._taken.append(self.now)
        room = self._taken[-self._buffer] if len(self._taken) >= self._buffer else 0.0
        self._ready.append(max(self._ready[-1], room) + self._period)

    def sync(self):
        if len(self._done) >= AHEAD:
            self.now = max(self.now, self._done[-AHEAD])


def accounts(machine, age=0.0, gather=lambda row: np.asarray([row], float)):
    return Ledger(machine.free_since, machine.clock, age, gather)


def steps(machine, ledger, count):
    for _ in range(count):
        machine.dispatch()
        with ledger.during("data_wait"):
            machine.next()
        machine.sync()


def sums_to_one(values):
    return values["goodput"] + sum(values[f"lost/{cause}"] for cause in LOST) == pytest.approx(1)


@pytest.mark.parametrize("rate, lost", [(0.9, 0.1), (0.5, 0.5), (0.25, 0.75), (1.1, 0), (4, 0)])
def test_waiting_for_data_is_what_the_devices_wait(rate, lost):
    """A loop whose input comes at so many batches a step's time loses the rest, and no more."""
    machine = Machine(rate)
    ledger = accounts(machine)
    ledger.begin(0)
    steps(machine, ledger, 20)
    ledger.report(20)  # until the buffer is used up
    steps(machine, ledger, 200)
    values = ledger.report(220)
    whole = values["seconds/data_wait"] + values["seconds/step"]
    assert values["seconds/data_wait"] / whole == pytest.approx(lost, abs=0.01)
    assert sums_to_one(values)


def test_what_is_lost_is_told_by_its_cause_and_sums_to_one():
    machine = Machine()
    ledger = accounts(machine, age=30.0)
    machine.now += 10
    ledger.begin(1)  # 40 s after the process began
    for _ in range(10):
        machine.dispatch()
        machine.sync()
    machine.now += 1  # until the last step is done
    with ledger.during("save"):
        machine.now += 5
    machine.dispatch()
    with ledger.during("evaluation"):
        machine.now += 8  # a second of it while the step before is on its way
    assert ledger.paused == 12
    values = ledger.report(12)
    assert {name: values[f"seconds/{name}"] for name in ("save", "evaluation", "data_wait")} == {
        "save": 5, "evaluation": 7, "data_wait": 0}
    whole = values["seconds/run"]
    assert whole == 40 + values["seconds/step"] + 12 and values["seconds/step"] == 11
    assert values["lost/start"] == 40 / whole and values["lost/save"] == 5 / whole
    assert values["goodput"] == 11 / whole and sums_to_one(values)
    assert values["memory/host"] > 0.01 and "memory/device" not in values  # CPUs do not say


def test_a_run_that_goes_on_keeps_its_accounts(tmp_path, monkeypatch):
    """What was done after the last checkpoint is lost, and so is the time until the next start."""
    monkeypatch.setattr(ledgers.time, "time", lambda: 1000.0)
    machine = Machine()
    ledger = accounts(machine)
    with RunLog(tmp_path, 0, ledger) as log:
        ledger.begin(0)
        machine.now += 20
        log.step(20, ledger.report(20))
    first = json.loads((tmp_path / "train.jsonl").read_text())
    assert first["goodput"] == 1 and first["step"] == 20 and first["time"] == 1000.0

    monkeypatch.setattr(ledgers.time, "time", lambda: 1040.0)  # 40 s later, and 10 of a new start
    machine = Machine()
    ledger = accounts(machine, age=10.0)
    with RunLog(tmp_path, 12, ledger) as log:  # the checkpoint is of step 12
        ledger.begin(12)
        machine.now += 16  # 8 steps for the second time, 8 new ones
        values = ledger.report(28)
        log.step(28, values)
    seconds = {cause: values[f"lost/{cause}"] * values["seconds/run"] for cause in LOST}
    assert seconds == pytest.approx(dict.fromkeys(LOST, 0) | {"down": 30, "start": 10, "again": 8})
    assert values["seconds/run"] == pytest.approx(20 + 30 + 10 + 16) and sums_to_one(values)
    assert values["goodput"] * values["seconds/run"] == pytest.approx(28)
    (line,) = (tmp_path / "train.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 28


def test_the_slowest_process_is_named(monkeypatch, caplog):
    machine = Machine()
    rows = iter([[[3.0], [5.0], [4.0]],
                 [[0.0, 0, 0, 0, 1.5, 12], [2.0, 0, 0, 0, 1.0, 3], [0.5, 0, 0, 0, 0.5, 12]]])
    monkeypatch.setattr(ledgers.hosts, "name", lambda process: f"process {process} (node)")
    monkeypatch.setattr(ledgers.machine, "memory", lambda: {"memory/host": 1.5})
    monkeypatch.setattr(ledgers.cores, "cores", lambda: 12)
    ledger = accounts(machine, gather=lambda _: np.asarray(next(rows)))
    with caplog.at_level(logging.INFO, "absl"):
        ledger.begin(1)
        machine.now += 10
        values = ledger.report(11)
    assert (values["slowest/process"], values["slowest/seconds"]) == (1, 2.0)
    assert values["seconds/data_wait"] == 2 and values["seconds/step"] == 8
    assert values["memory/host"] == 1.5
    begun, waited = caplog.messages
    assert begun.endswith("3.0 s after the start of the process; process 1 (node) after 5.0 s")
    assert waited.startswith("process 1 (node): waited for data in 20% of the time (2.0 of 10.0 s)"
                             ", with 3.0 of 12 cores of the process busy: data.workers=-1 keeps")


def test_one_process_tells_of_all(monkeypatch, caplog):
    for first in (False, True):
        monkeypatch.setattr(ledgers.hosts, "is_first", lambda first=first: first)
        machine = Machine(0.5)
        ledger = accounts(machine)
        ledger.begin(0)
        steps(machine, ledger, 20)
        ledger.report(20)
        assert caplog.text.count("waited for data") == first


class Step:
    """A step of a device: done at its time."""

    def __init__(self, before):
        self._done = max(time.monotonic(), before._done if before else 0.0) + 0.02

    def block_until_ready(self):
        time.sleep(max(self._done - time.monotonic(), 0))
        return self


@pytest.mark.parametrize("rate", [0.9, 0.5, 0.25])
def test_slow_input_is_found_and_named(tmp_path, caplog, monkeypatch, rate):
    """Through the loop's own parts, input at so many batches a step, however long that takes.

    So what else the machine does makes none of it faster: the share is no smaller. That it is no
    larger is seen above, by a clock of the test's own.
    """
    monkeypatch.setattr(ledgers, "LEAST", 0.1)
    monkeypatch.setattr(ledgers.cores, "cores", lambda: 64)
    vigil = Vigil(tmp_path, 30, 0)

    def batches():
        while True:
            asked = time.monotonic()
            while (free := vigil._flight.free_since()) is None:
                time.sleep(0.001)
            time.sleep(max(asked + max(free - asked, 0) / rate - time.monotonic(), 0))
            yield None

    given, step = prefetch_to_device(batches(), lambda batch: batch), None
    with caplog.at_level(logging.WARNING, "absl"):
        for number in range(25):
            step = Step(step)
            vigil.dispatched(number, {"loss": step})
            vigil.next(given)
            vigil.sync(number)
            if number == 5:
                vigil.ledger.begin(number)
        values = vigil.ledger.report(24)
    vigil.end("all")
    share = values["seconds/data_wait"] / (values["seconds/data_wait"] + values["seconds/step"])
    assert 1 - rate - 0.02 < share < 1 and share > ledgers.MUCH
    assert f"waited for data in {100 * share:.0f}% of the time" in caplog.text
    assert "data.threads=16 reads more of it at once" in caplog.text


def test_where_all_cores_are_busy_more_of_them_are_asked_for(caplog, monkeypatch):
    machine = Machine(0.5)
    monkeypatch.setattr(ledgers.cores, "cores", lambda: 2)
    monkeypatch.setattr(ledgers.cores, "seconds", lambda: 1.9 * machine.now)
    ledger = accounts(machine)
    ledger.begin(0)
    steps(machine, ledger, 40)
    ledger.report(40)
    (line,) = caplog.messages
    assert "with 1.9 of 2 cores of the process busy: give it more of them, or prepare" in line
    assert "benchmarks.input --cores" in line


def test_cores_are_busy_by_the_time_of_steps_and_their_data_alone(caplog, monkeypatch):
    """At a validation nothing is prepared for training, and its own workers are gone after it."""
    machine, used = Machine(0.5), [0.0]
    monkeypatch.setattr(ledgers.cores, "cores", lambda: 2)
    monkeypatch.setattr(ledgers.cores, "seconds", lambda: used[0])
    ledger = accounts(machine)
    ledger.begin(0)
    for cause, busy in (("evaluation", 0.5), ("save", 0.1), ("evaluation", 2.0)):
        start = machine.now
        steps(machine, ledger, 20)
        used[0] += 1.8 * (machine.now - start)
        machine.now += 2  # until the last step is done
        with ledger.during(cause):
            machine.now += 100
            used[0] += busy * 100
    ledger.report(60)
    (line,) = caplog.messages
    assert "with 1.7 of 2 cores of the process busy: give it more of them" in line


def test_processor_time_has_that_of_processes_which_are_gone():
    before = cores.seconds()
    process = multiprocessing.get_context("spawn").Process(target=sum, args=(range(2 * 10**7),))
    process.start()
    process.join()
    assert not multiprocessing.active_children() and cores.seconds() - before > 0.1


def test_it_is_told_once_until_it_is_better(caplog):
    machine = SimpleNamespace(now=0.0)
    ledger = Ledger(lambda: 0.0, lambda: machine.now, 0.0, lambda row: np.asarray([row], float))
    ledger.begin(0)
    for number, wait in enumerate((2, 2, 0, 2), 1):
        with ledger.during("data_wait"):
            machine.now += wait
        machine.now += 10
        ledger.report(number)
    assert sum("waited for data" in message for message in caplog.messages) == 2
