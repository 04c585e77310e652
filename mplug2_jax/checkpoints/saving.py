"""Saving while training goes on: one checkpoint at a time, which counts once it is whole."""

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from mplug2_jax.checkpoints import folders, manifest
from mplug2_jax.checkpoints.checksums import Sum, checksums
from mplug2_jax.checkpoints.choice import Choice
from mplug2_jax.checkpoints.errors import CheckpointError
from mplug2_jax.contracts import paths
from mplug2_jax.parallel import hosts

_SETTLED = 1.0  # seconds after which nothing of a failed save is written any more
FINITE = ("params", "ema")  # items without which a run is lost where they are not finite


class Saver:
    """Writes checkpoints to a folder, in the background.

    Each is written where it is none (`folders`). When all hosts have written their part, the first
    one adds the manifest, which makes it a checkpoint, and removes older ones: in between there is
    no moment at which one is not whole, or at which there is none.

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
        self._failed: list[int] = []

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
        require_finite(number, sums, self._stays())
        if (self._folder / str(number)).exists():
            raise CheckpointError(f"{self._folder}/{number} is there already")
        with self._explained(number):
            self._writer.save(paths.plain(folders.begin(self._folder, number)), ocp.args.Composite(
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
            # Where one array could not be written, Orbax does not wait for the others, which make
            # their folder anew for a moment.
            deadline = time.monotonic() + _SETTLED if self._failed else 0
            while time.monotonic() < deadline:
                for number in self._failed:
                    self._remove(number)
                time.sleep(_SETTLED / 20)

    def _finish(self, number: int, sums: Mapping[str, Mapping[str, Sum]]) -> None:
        """In the background: what comes after the arrays are on their way."""
        self._saves += 1
        key, failure = f"saved/{self._folder}/{self._saves}", None
        try:
            with self._explained(number):
                self._writer.wait_until_finished()
                if hosts.is_first():
                    folders.commit(self._folder, number, sums)
                    self._choice.retire(number, self._keep, self._every)
        except CheckpointError as error:
            failure = error
        # No host goes on, or ends, before the first has made it a checkpoint.
        word = hosts.word_of_first(key, str(failure or ""))
        if failure or word:
            raise failure or CheckpointError(word)
        self._newest = number

    @contextlib.contextmanager
    def _explained(self, number: int) -> Any:
        """Removes what could not be written, and says so in a line."""
        try:
            yield
        except Exception as error:
            self._failed.append(number)
            self._remove(number)
            raise CheckpointError(f"{self._folder}: step {number} could not be saved: "
                                  f"{manifest.said(error)}; {self._stays()}") from error

    def _remove(self, number: int) -> None:
        """Removes what is half written."""
        if hosts.is_first():
            folders.abandon(self._folder, number)

    def _stays(self) -> str:
        if self._newest is None:
            return "there is no checkpoint yet"
        return f"the newest good checkpoint is still step {self._newest}"


def require_finite(number: int, sums: Mapping[str, Mapping[str, Sum]], stays: str) -> None:
    """FloatingPointError where parameters are not finite, which says that a checkpoint `stays`."""
    lost = [f"{item} {name}" for item in FINITE for name, one in sums.get(item, {}).items()
            if not one.finite]
    if lost:
        more = f" and {len(lost) - 1} more" if lost[1:] else ""
        raise FloatingPointError(
            f"step {number}: {lost[0]}{more} are not finite: it is not saved, {stays}; lower "
            "optimizer.learning_rate or clip_norm and start again")
