"""Checkpoints on the hosts' own disks, every few steps, beside the rarer ones in shared storage.

Each host writes its part by itself (`parts`), and makes it whole by a manifest. Which parts belong
together is found out at the next start: those of one step whose manifests have the same checksums.
"""

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
from absl import logging
from jax.sharding import Mesh

from mplug2_jax.checkpoints import manifest, parts
from mplug2_jax.checkpoints.checksums import Sum, checksums
from mplug2_jax.checkpoints.errors import Damaged
from mplug2_jax.checkpoints.folders import SAVING, clean, commit, remove, stored
from mplug2_jax.checkpoints.manager import LAST, describe
from mplug2_jax.checkpoints.saving import require_finite
from mplug2_jax.contracts import paths
from mplug2_jax.parallel import hosts
from mplug2_jax.parallel.copies import completed, covered, placed
from mplug2_jax.parallel.sharding import path_name, with_places

RUN = "local_run"  # in the folder of checkpoints: its path, and the run's folder on hosts' disks
_BUSY = " is still being written"  # of the one before
_T = TypeVar("_T")


class LocalCheckpoints:
    """The local checkpoints of a run; all hosts make it and call what it offers.

    As a context it surrounds the run, outside of its shared checkpoints. Where the run ends well
    and they have all of it, what is on this host's disk is removed.

    Args:
      workdir: of the run; its folder of checkpoints is there.
      folder: on this host's disk, or None: then there are none, and older ones count no more, for
        the run goes on without them.
      every: steps from one to the next.

    Attributes:
      folder: of this host's own, or None.
      latest: step of the newest that any host has; then of the one that was taken, or of the
        newest that is written; None for none.
    """

    def __init__(self, workdir: Path, folder: str | None, every: int):
        self._workdir, self._every = workdir, every
        self.folder: Path | None = None
        self.latest: int | None = None
        self._ended = False
        self._told = False
        self._pending: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "save-local")
        if not folder:
            return
        self.folder = (Path(folder).absolute() / _run_name(workdir / LAST)
                       / f"host-{jax.process_index()}")
        self.folder.mkdir(parents=True, exist_ok=True)
        clean(self.folder)
        # Of this host's whole parts, what is the same for all hosts.
        self._records = {step: record for step in stored(self.folder)
                         if (record := _record(self.folder / str(step)))}
        self._record: Mapping[str, Any] = {}
        self._holders: set[int] = set()
        self.latest = max((step for marks in self._marks() for step in marks), default=None)

    def first_good(self, above: int | None, shapes: Mapping[str, Any], mesh: Mesh,
                   read: Callable[[], _T]) -> _T | None:
        """What `read` gives of the newest one that is whole on all hosts together, or None.

        Args:
          above: only steps above this one are looked at; None for all.
          shapes: trees of shapes by item, as they are wanted; one with others is passed over.
          mesh: where they go; likewise.
          read: calls `meta` and `restore`, and is called again with an older one where that finds
            damage.
        """
        if self.folder is None:
            return None
        self._drop_unfit(shapes, mesh)
        while True:
            self.latest = self._choose(above, shapes, mesh)
            if self.latest is None:
                return None
            try:
                return read()
            except Damaged as error:
                logging.warning("local checkpoint of step %d: %s", self.latest, error.reason)

    def meta(self) -> dict[str, Any]:
        """As of `Checkpoints.meta`, of the one that was chosen."""
        return dict(self._record["meta"])

    def restore(self, shapes: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
        """The items of the one that was chosen, on the mesh, compared with their checksums.

        Args:
          shapes, mesh: as of `first_good`.

        Raises:
          Damaged: a host's part is, on all hosts.
        """
        assert self.folder is not None and self.latest is not None
        path = self.folder / str(self.latest)
        own: dict[str, Any] = {}
        wrong: dict[str, int] = {}
        if jax.process_index() in self._holders:
            try:
                own = parts.read(path)
            except (Damaged, OSError, ValueError) as error:
                why = error.reason if isinstance(error, Damaged) else manifest.said(error)
                wrong = {f"{self.folder.name}: {why}; it is not used": 1}
                del self._records[self.latest]
        if lost := hosts.totals(wrong):
            raise Damaged(path, "; ".join(lost))
        whole = len(self._holders) == jax.process_count()

        def array(name: tuple[Any, ...], x: Any) -> jax.Array:
            shards = own.get(path_name(name), {})
            return placed(shards, x.shape, x.sharding) if whole else completed(
                shards, x.shape, x.dtype, x.sharding, self._has)

        found = jax.tree_util.tree_map_with_path(array, with_places(dict(shapes), mesh))
        # Of copies on several hosts each sums its own.
        wrong = {f"{item}: {name} is not what its checksum says; it is not used": 1
                 for item, tree in found.items() for name, one in checksums(tree).items()
                 if self._record["arrays"][item][name] != list(one[:2])}
        if lost := hosts.totals(wrong):
            self._records.pop(self.latest, None)
            raise Damaged(path, next(iter(lost)))
        return found

    def due(self, step: int) -> bool:
        """Whether one is to be written after this step; all hosts must ask.

        Not where a host still writes the one before, which is then known to be whole on all.
        """
        if self.folder is None or self._ended or step % self._every:
            return False
        said = hosts.totals(self._state())
        if lost := sorted(said.keys() - {_BUSY}):
            logging.warning("local checkpoints end: %s; training goes on without them", lost[0])
            self._ended = True
        elif said:
            if not self._told:
                logging.warning("no local checkpoint of step %d, for that of step %s%s: give a "
                                "larger --local_every; it is not told again", step, self.latest,
                                _BUSY)
            self._told = True
        return not said

    def save(self, step: int, items: Mapping[str, Any], config: dict[str, Any],
             samples: dict[str, int], pace: Mapping[str, Any] | None = None) -> None:
        """Starts writing, where it is `due`; the run goes on once the shards are copied.

        Args:
          step, items, config, samples, pace: as of `Checkpoints.save`.

        Raises:
          FloatingPointError: parameters are not finite, which is not written.
        """
        sums = {name: checksums(tree) for name, tree in items.items()}
        require_finite(step, sums, "there is no local checkpoint yet" if self.latest is None else
                       f"the newest local checkpoint is still step {self.latest}")
        self._pending = self._thread.submit(
            self._write, step, parts.copied(items), describe(step, config, samples, pace=pace),
            sums, self.latest)
        self.latest = step

    def _write(self, step: int, arrays: Mapping[str, parts.Array], meta: Mapping[str, Any],
               sums: Mapping[str, Mapping[str, Sum]], kept: int | None) -> None:
        """In the background: of those before only `kept` stays, which all hosts have."""
        assert self.folder is not None
        saving = self.folder / f"{step}{SAVING}"
        try:
            self._remove_all_but(kept)
            parts.write(saving, arrays, meta)
            commit(self.folder, step, sums)
        except OSError as error:
            shutil.rmtree(saving, ignore_errors=True)
            logging.warning("%s: step %d could not be saved: %s", self.folder, step,
                            manifest.said(error))
            raise

    def _state(self) -> dict[str, int]:
        """Of the save before this host's word, where it is not yet or never whole."""
        if self._pending is None or self._pending.done() and not self._pending.exception():
            return {}
        if not self._pending.done():
            return {_BUSY: 1}
        error = self._pending.exception()
        if not isinstance(error, OSError):
            self._pending.result()
        return {f"{self.folder}: {manifest.said(error)}": 1} if error else {}

    def _drop_unfit(self, shapes: Mapping[str, Any], mesh: Mesh) -> None:
        assert self.folder is not None
        target = {path_name(path): x for path, x in
                  jax.tree_util.tree_leaves_with_path(with_places(dict(shapes), mesh))}
        for step in list(self._records):
            if not parts.fits(self.folder / str(step), target):
                logging.warning("%s/%d is of another mesh or of other arrays: it is not used",
                                self.folder, step)
                del self._records[step]

    def _choose(self, above: int | None, shapes: Mapping[str, Any], mesh: Mesh) -> int | None:
        """The newest step of which hosts together have all; notes who has it, and its record."""
        every, shardings = self._marks(), [
            x.sharding for x in jax.tree.leaves(with_places(dict(shapes), mesh))]
        steps = {step for marks in every for step in marks if above is None or step > above}
        for step in sorted(steps, reverse=True):
            for mark in sorted({marks[step] for marks in every if step in marks}):
                self._holders = {process for process, marks in enumerate(every)
                                 if marks.get(step) == mark}
                if covered(shardings, self._has):
                    first = jax.process_index() == min(self._holders)
                    said = hosts.gathered(json.dumps(self._records[step]) if first else "")
                    self._record = json.loads("".join(said))
                    return step
            logging.warning("local checkpoint of step %d: %d of %d hosts have their part, which "
                            "is not all of it", step, len(self._holders), len(every))
        return None

    def _marks(self) -> list[dict[int, str]]:
        """By host and step what tells checkpoints of one step apart."""
        own = {step: hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
               for step, record in self._records.items()}
        return [{int(step): mark for step, mark in json.loads(said).items()}
                for said in hosts.gathered(json.dumps(own))]

    def _has(self, device: jax.Device) -> bool:
        return device.process_index in self._holders

    def _remove_all_but(self, step: int | None) -> None:
        assert self.folder is not None
        for number in stored(self.folder):
            if number != step:
                remove(self.folder / str(number))

    def __enter__(self) -> Self:
        if self.folder is not None:
            self._remove_all_but(self.latest)  # steps that come again
        elif hosts.is_first():
            (self._workdir / LAST / RUN).unlink(missing_ok=True)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._thread.shutdown()
        if self.folder is None or error is not None:
            return
        self._state()
        if max(stored(self._workdir / LAST), default=-1) >= (self.latest or 0):
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # others are in it
                self.folder.parent.rmdir()


def _run_name(checkpoints: Path) -> str:
    """A name that no other run has; a new one where the folder of checkpoints is new or copied."""
    path, said = checkpoints / RUN, ""
    if hosts.is_first():
        here = str(checkpoints.resolve())
        there, said = ([*path.read_text().splitlines(), "", ""] if path.exists() else ["", ""])[:2]
        if there != here or not said:
            said = f"{checkpoints.resolve().parent.name}-{secrets.token_hex(6)}"
            paths.write(path, f"{here}\n{said}\n")
    return hosts.gathered(said)[0]


def _record(folder: Path) -> dict[str, Any]:
    """What a whole part says of the whole checkpoint: its `meta`, and checksums of its `arrays`.

    Nothing where it is not whole as far as its files say.
    """
    try:
        if not (wrong := manifest.damage(folder)):
            return {"meta": json.loads((folder / manifest.META).read_text()),
                    "arrays": {item: {name: list(one) for name, one in sums.items()}
                               for item, sums in manifest.arrays(folder).items()}}
    except OSError as error:
        wrong = manifest.said(error)
    logging.warning("%s is not used: %s", folder, wrong)
    return {}
