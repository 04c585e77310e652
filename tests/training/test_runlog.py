"""What a run logs, also where the disk gives no more room."""

import contextlib
import resource
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mplug2_jax.training.ledger import Ledger
from mplug2_jax.training.runlog import RunLog


@contextlib.contextmanager
def room(size):
    """No file of this process may be larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("file, size, values", [
    ("train.jsonl", 2_000, {"loss": 1.5}),  # before TensorBoard's buffer is full
    ("tensorboard", 20_000, {f"part_{n}/loss": n + 0.5 for n in range(30)})])
def test_a_log_without_room_is_an_error_that_names_it(tmp_path, file, size, values):
    """At once: nothing waits for a thread that has ended by it."""
    with (pytest.raises(OSError) as raised, room(size),
          RunLog(tmp_path, 0, Ledger(lambda: 0.0)) as log):
        for step in range(1, 1000):
            log.step(step, values)
    assert raised.value.filename == str(tmp_path / file)


def test_tensorboard_gets_each_value_and_where_the_run_went_on(tmp_path):
    with RunLog(tmp_path, 7, Ledger(lambda: 0.0)) as log:
        log.step(8, {"loss": 1.5, "video/vtc": 2.0})
        log.validation(8, {"accuracy": 0.25})
    (path,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    content, events = path.read_bytes(), []
    while content:
        (size,) = struct.unpack("Q", content[:8])
        events.append(Event.FromString(content[12:12 + size]))
        content = content[16 + size:]
    assert events[0].file_version == "brain.Event:2" and events[1].step == 8
    assert events[1].session_log.status == SessionLog.START  # later steps of other files are void
    assert [(event.step, event.summary.value[0].tag, event.summary.value[0].simple_value)
            for event in events[2:]] == [(8, "loss", 1.5), (8, "video/vtc", 2.0),
                                         (8, "validation/accuracy", 0.25)]


class Closing:
    """A place for figures that perhaps cannot be closed."""

    def __init__(self, error=None):
        self.error, self.closed = error, False

    def scalars(self, step, values):
        pass

    def close(self):
        self.closed = True
        if self.error:
            raise self.error


@pytest.mark.parametrize("of_the_run", [None, ValueError("what the run ended for")])
def test_one_that_cannot_be_closed_leaves_none_open_and_is_told(tmp_path, of_the_run):
    """Unless the run has an error of its own, which is told."""
    places = [Closing(), Closing(OSError("no room for the end")), Closing()]
    said = str(of_the_run or places[1].error)
    with (pytest.raises(type(of_the_run or places[1].error), match=said),
          RunLog(tmp_path, 0, Ledger(lambda: 0.0), places) as log):
        log.step(1, {"loss": 1.5})
        if of_the_run:
            raise of_the_run
    assert all(place.closed for place in places)
    for writer in (*log._validations, log._steps[0]):
        assert writer._file.closed
    (path,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"loss" in path.read_bytes()  # which was in its buffer
