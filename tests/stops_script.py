"""A run without a model: steps that wait, and all that stops them. It prints each step's number."""

import contextlib
import ctypes
import os
import time
from pathlib import Path

import numpy as np
from absl import flags

from mplug2_jax import launch
from mplug2_jax.training.vigil import Vigil

WORKDIR = flags.DEFINE_string("workdir", ".", "Gets what is saved.")
STEPS = flags.DEFINE_integer("steps", 100, "How many.")
SECONDS = flags.DEFINE_float("seconds", 0.05, "That a step takes.")
GRACE = flags.DEFINE_float("grace", 30, "As of train.py.")
STUCK = flags.DEFINE_float("stuck_after", 0, "As of train.py.")
CLOSING = flags.DEFINE_float("closing", 0, "Seconds from the save to the end.")
SAVING = flags.DEFINE_float("saving", 0, "Seconds that a save takes.")
DOES = flags.DEFINE_enum("does", "steps", ["steps", "starts", "compiles", "validates", "waits",
                                           "hangs"], "What it does, from the third step on.")


def compiles():
    """In a library, which comes back to Python neither by itself nor for a signal."""
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_init(lock, None)
    for _ in range(2):
        library.pthread_mutex_lock(lock)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


@contextlib.contextmanager
def closing():
    """What a log does at its end, once all is on disk."""
    yield
    time.sleep(CLOSING.value)


def never(vigil):
    """Batches that do not come."""
    while True:
        vigil.idle()
        time.sleep(0.05)
        yield from ()


def main():
    if DOES.value == "starts":
        say("step 0")
        time.sleep(600)
    vigil, folder = Vigil(Path(WORKDIR.value), GRACE.value, STUCK.value), Path(WORKDIR.value)

    def save(step):
        time.sleep(SAVING.value)
        (folder / f"saved_{os.getpid()}").write_text(str(step))

    put = vigil.put(lambda batch: batch)
    with closing(), vigil.saving(), vigil.over(0, lambda: None, save):
        for step in range(1, STEPS.value + 1):
            if DOES.value == "compiles":
                say("step 0")
                compiles()
            vigil.dispatched(step, {"loss": np.zeros(())})
            say("step", step)
            time.sleep(SECONDS.value)
            if DOES.value == "waits" and step == 3:
                assert vigil.next(never(vigil)) is None
            if DOES.value == "hangs" and step == 3:
                time.sleep(600)
            if DOES.value == "validates" and step == 3:
                with vigil.during("a validation"):
                    for batch in range(10_000):
                        time.sleep(SECONDS.value)
                        put(batch)
            vigil.sync(step)
    return vigil.end("all of it")


if __name__ == "__main__":
    launch.main(main, distributed=True)
