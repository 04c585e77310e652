"""Saving while training goes on: one checkpoint at a time, which counts once it is whole."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from mplug2_jax.checkpoints import manifest
from mplug2_jax.checkpoints.checksums import Sum, checksums
from mplug2_jax.checkpoints.choice import SAVING, Choice
from mplug2_jax.checkpoints.errors import CheckpointError
from mplug2_jax.parallel import hosts

FINITE = ("params", "ema")  # items without which a run is lost where they are not finite


class Saver:
    """Writes checkpoints to a folder, in the background.

    Each is written under another name. When all hosts have written their part, the first one adds
    the manifest, gives it its name, and removes older ones: in between there is no moment at which
    a folder that is called by a number is not whole, or at which there is none.

    Args:
      folder: is there.
      choice: of that folder.
      keep, every: as of `Choice.retire`.
    """

    def __init__(self, folder: Path, choice: Choice, keep: int, every: int):
        self._folder, self._choice, self._keep, self._every = folder, choice, keep, every
        # Two folders may be written at once: the prefix keeps the hosts' meetings for them apart.
        meetings = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=folder.name)
        # Made in the background, a folder that cannot be made is an error after five minutes.
        at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(
                multiprocessing_options=meetings, async_options=at_once)),
            multiprocessing_options=meetings, async_options=at_once)
        self._thread = ThreadPoolExecutor(1, f"save-{folder.name}")
        self._pending: Future[None] | None = None
        self._newest = choice.numbers[0] if choice.numbers else None
        self._saves = 0

    def save(self, number: int, items: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Begins to write a checkpoint, once the one before it is written.

        Args:
          number: of it; none that is there has it.
          items: trees of arrays by name.
          meta: plain values.

        Raises:
          CheckpointError: this one or the one before could not be written.
          FloatingPointError: parameters are not finite, which is not written.
        """
        self.wait()
        sums = {name: checksums(tree) for name, tree in items.items()}
        self._require_finite(number, sums)
        if (self._folder / str(number)).exists():
            raise CheckpointError(f"{self._folder}/{number} is there already")
        with self._explained(number):
            self._writer.save(self._folder / f"{number}{SAVING}", ocp.args.Composite(
                **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                meta=ocp.args.JsonSave(dict(meta))), force=True)
        self._pending = self._thread.submit(self._finish, number, sums)

    def wait(self) -> None:
        """Returns when what is being written is whole; CheckpointError where it cannot be."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits, and lets the folder go, also where writing has failed."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._writer.close()

    def _finish(self, number: int, sums: Mapping[str, Mapping[str, Sum]]) -> None:
        """In the background: what comes after the arrays are on their way."""
        self._saves += 1
        key, failure = f"saved/{self._folder}/{self._saves}", None
        try:
            with self._explained(number):
                self._writer.wait_until_finished()
                if hosts.is_first():
                    commit(self._folder, number, sums)
                    self._choice.retire(number, self._keep, self._every)
        except CheckpointError as error:
            failure = error
        # No host goes on, or ends, before the first has made it a checkpoint.
        word = hosts.word_of_first(key, str(failure or ""))
        if failure or word:
            raise failure or CheckpointError(word)
        self._newest = number

    def _require_finite(self, number: int, sums: Mapping[str, Mapping[str, Sum]]) -> None:
        lost = [f"{item} {name}" for item in FINITE for name, one in sums.get(item, {}).items()
                if not one.finite]
        if lost:
            more = f" and {len(lost) - 1} more" if lost[1:] else ""
            raise FloatingPointError(
                f"step {number}: {lost[0]}{more} are not finite: it is not saved, "
                f"{self._stays()}; lower optimizer.learning_rate or clip_norm and start again")

    @contextlib.contextmanager
    def _explained(self, number: int) -> Any:
        """Removes what could not be written, and says so in a line."""
        try:
            yield
        except Exception as error:
            if hosts.is_first():
                for path in self._folder.glob(f"{number}{SAVING}*"):
                    shutil.rmtree(path, ignore_errors=True)
            raise CheckpointError(f"{self._folder}: step {number} could not be saved: "
                                  f"{manifest.said(error)}; {self._stays()}") from error

    def _stays(self) -> str:
        if self._newest is None:
            return "there is no checkpoint yet"
        return f"the newest good checkpoint is still step {self._newest}"


def commit(folder: Path, number: int, sums: Mapping[str, Mapping[str, Sum]]) -> None:
    """Makes what is written a checkpoint: adds its manifest, and gives it its name."""
    saving = folder / f"{number}{SAVING}"
    manifest.write(saving, sums)
    os.rename(saving, folder / str(number))
    manifest.sync(folder)
