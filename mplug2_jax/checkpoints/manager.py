"""Checkpoints: written while training goes on, restored onto any mesh, loaded by module, strictly.

A folder holds one Orbax checkpoint a kept step: `params`, other items (trees by name) as the run
has them, `meta` (the format's version, step, samples seen of each stream, config, pace), and a
manifest of all of it. What is read is compared with the manifest.
"""

import importlib.metadata
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh

from mplug2_jax.checkpoints import folders, manifest
from mplug2_jax.checkpoints.checksums import checksums
from mplug2_jax.checkpoints.choice import Choice
from mplug2_jax.checkpoints.errors import CheckpointError, Damaged
from mplug2_jax.checkpoints.reading import read_arrays, read_items, read_meta, read_shapes
from mplug2_jax.checkpoints.saving import Saver
from mplug2_jax.contracts import paths
from mplug2_jax.parallel import hosts
from mplug2_jax.parallel.sharding import path_name, with_places

# Version of what is written. 1, which checkpoints do not say: each entry of what a task keeps
# across steps is an item by itself; configs have the options of all tasks. 2: without a manifest.
FORMAT = manifest.FORMAT
OPTIMIZER, AVERAGE = "rest", "ema"  # items: the optimizer's state, the average for evaluation
GUARD = "guard"  # the item that counts the steps which changed nothing
LAST, BEST = "checkpoints", "best"  # folders of a work folder
TASK_STATE = "task_state"  # the item that is what a task keeps across steps, entries by name
_T = TypeVar("_T")


class Checkpoints:
    """The checkpoints of one folder; all hosts open it and call what it offers.

    As a context it ends what is being written, also where an error ends the run.

    Args:
      folder: made if `keep` is given, else it must hold a checkpoint.
      keep: how many of the newest to keep, for writing; 0 opens it for reading.
      every: of older ones, those whose number is a multiple of this stay, too; 0 for none.
      begins_anew: whether there may be none, or all may be damaged.
      most: for reading, the newest number that is looked at; None for all.

    Attributes:
      latest: number of the newest checkpoint that is good, or None.

    Raises:
      CheckpointError: opened for reading, and there is no checkpoint; or all are damaged.
    """

    def __init__(self, folder: str | Path, keep: int = 0, every: int = 0,
                 begins_anew: bool = False, most: int | None = None):
        self.folder = folders.place(folder)
        if keep or begins_anew and not self.folder.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
        elif not self.folder.is_dir():
            raise CheckpointError(f"checkpoint folder {folder} does not exist")
        self._choice = Choice(self.folder, bool(keep), begins_anew, most)
        self.latest: int | None = self._choice.numbers[0] if self._choice.numbers else None
        if not keep and self.latest is None and not begins_anew:
            what = "checkpoint" if most is None else f"checkpoint of step {most} or before"
            raise CheckpointError(f"{folder} holds no {what}: give the folder that train.py "
                                  "writes checkpoints to")
        self._saver = Saver(self.folder, self._choice, keep, every) if keep else None
        self._seen: tuple[Path, list[str]] | None = None  # the items of a checkpoint

    @property
    def path(self) -> Path:
        """The folder of the newest checkpoint."""
        return self.folder / str(self.latest)

    def save(self, step: int, items: Mapping[str, Any], config: dict[str, Any],
             samples: dict[str, int], best: Mapping[str, Any] | None = None,
             number: int | None = None, pace: Mapping[str, Any] | None = None) -> None:
        """Starts writing; the run goes on once the arrays are copied.

        Args:
          step: steps done.
          items: trees of arrays of any mesh by name, `params` among them.
          config: the run's config as plain values.
          samples: global samples seen of each stream: where the data goes on.
          best: of a best checkpoint, what it is best by.
          number: of the checkpoint in the folder, where that is not the step.
          pace: how its steps count, plain values.

        Raises:
          CheckpointError: this one, or the one before, could not be written.
          FloatingPointError: parameters are not finite, which is not written.
        """
        if self._saver is None:
            raise CheckpointError(f"{self.folder} is open for reading")
        meta = describe(step, config, samples, best=best, pace=pace)
        number = step if number is None else number
        self._saver.save(number, items, meta)
        self.latest = number

    def first_good(self, read: Callable[[], _T]) -> _T:
        """What `read` gives of the newest checkpoint that can be read.

        Arrays are read late, and damaged ones found then: `read`, which is to call all that it
        uses of this folder, is called again with an older checkpoint.

        Raises:
          CheckpointError: all are damaged.
        """
        while True:
            try:
                found = read()
            except Damaged as error:
                self._choice.reject(error)
                if not self._choice.numbers:
                    raise CheckpointError(f"{self.folder}: all its checkpoints are gone") from error
                self.latest = self._choice.numbers[0]
            else:
                self._choice.put_aside()
                return found

    def meta(self) -> dict[str, Any]:
        """The newest checkpoint's `format, step, samples, config, versions`; perhaps `best, pace`.
        """
        return {"format": 1} | read_meta(self.path)

    def restore(self, shapes: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
        """Items of the newest checkpoint, placed on `mesh` by the sharding table.

        Args:
          shapes: by item, which the checkpoint has, as a tree of shapes; of `TASK_STATE` some of
            the `entries` that it has.
          mesh: any, also another than the one it was saved from.

        Raises:
          CheckpointError: an item's arrays are not those of `shapes`.
        """
        entries = dict(shapes.get(TASK_STATE, {}))
        names = list(entries)
        for name, tree in shapes.items():
            if name != TASK_STATE:
                self._require_whole("" if name == "params" else f"{name} ", tree,
                                    self.shapes(name))
        for name, tree in entries.items():
            self._require_whole(f"{name}/", tree, self.entry_shapes(name))
        whole = self.has(TASK_STATE)
        if names and whole:  # Orbax restores an item whole
            entries = self.shapes(TASK_STATE) | entries
        placed = with_places(dict(shapes) | {TASK_STATE: entries}, mesh)
        kept = placed.pop(TASK_STATE)
        if names:
            placed |= {TASK_STATE: kept} if whole else kept
        items = {name: read_arrays(self.path, name, tree) for name, tree in placed.items()}
        restored = {name: items[name] for name in shapes if name != TASK_STATE}
        source = items[TASK_STATE] if names and whole else items
        return restored | {TASK_STATE: {name: source[name] for name in names}}

    def entries(self) -> set[str]:
        """What the newest checkpoint has of what a task keeps across steps."""
        if self.has(TASK_STATE):
            return set(self.shapes(TASK_STATE))
        return set(self.items()) - {"params", OPTIMIZER, AVERAGE, GUARD}

    def entry_shapes(self, name: str) -> Any:
        """Of one of the `entries` the tree of shapes."""
        return self.shapes(TASK_STATE)[name] if self.has(TASK_STATE) else self.shapes(name)

    def _require_whole(self, prefix: str, tree: Any, stored: Any) -> None:
        """CheckpointError unless the two trees have the same names and shapes."""
        wanted, there = _flat(tree), _flat(stored)
        _require_equal(wanted, there, self.folder, prefix)
        if extra := sorted(set(there) - set(wanted)):
            raise CheckpointError(f"{self.folder}: holds {prefix}{extra[0]} and {len(extra) - 1} "
                                  "more parameters that the config does not name")

    def has(self, item: str) -> bool:
        """Whether the newest checkpoint has an item."""
        return item in self.items()

    def items(self) -> list[str]:
        """The items of the newest checkpoint."""
        if self._seen is None or self._seen[0] != self.path:
            self._seen = self.path, read_items(self.path)
        return self._seen[1]

    def load_params(self, shapes: Any, mesh: Mesh, allow_new: Iterable[str] = (),
                    averaged: bool = False) -> Any:
        """The parameters that a task wants, picked by module; the log says what happened to each.

        Args:
          shapes: the task's parameters as shapes.
          mesh: where they go.
          allow_new: modules (`decoder`, `heads/classify`) that the checkpoint may lack, or have in
            other shapes.
          averaged: those of the run's `ema`, where it has one.

        Returns:
          The tree of `shapes`; what is new is None, to be initialised.

        Raises:
          CheckpointError: a needed parameter is missing or has another shape.
        """
        item = AVERAGE if averaged and self.has(AVERAGE) else "params"
        return self._load(item, shapes, mesh, allow_new)

    def load_task_state(self, shapes: Mapping[str, Any], mesh: Mesh,
                        allow_new: Iterable[str] = ()) -> dict[str, Any]:
        """What a start that was written by `write_params` has for a task beside the parameters.

        A run's own belongs to that run, and is not loaded.

        Args:
          shapes: what the task keeps across steps, trees of shapes by name.
          mesh, allow_new: as of `load_params`.

        Returns:
          Of `shapes` the entries that are there; what is new in them is None.

        Raises:
          CheckpointError: a needed array is missing or has another shape.
        """
        entries = set() if self.has(OPTIMIZER) or not self.has(TASK_STATE) else self.entries()
        wanted = {name: tree for name, tree in shapes.items() if name in entries}
        new = [f"{name}/{module}" for name in wanted for module in allow_new]
        return self._load(TASK_STATE, wanted, mesh, new) if wanted else {}

    def _load(self, item: str, shapes: Any, mesh: Mesh, allow_new: Iterable[str]) -> Any:
        """`load_params` of an item."""
        stored, wanted = _flat(self.shapes(item)), _flat(shapes)
        allowed = tuple(f"{name.rstrip('/')}/" for name in allow_new)
        new = {name for name, x in wanted.items() if name.startswith(allowed)
               and (name not in stored or stored[name].shape != x.shape)}
        _require_equal({name: x for name, x in wanted.items() if name not in new}, stored,
                       self.folder, advice=_advice(set(wanted) - set(stored) - new))
        loaded = {name: x for name, x in wanted.items() if name not in new}
        dropped = {name: x for name, x in stored.items() if name not in loaded}
        logging.info("%s, %s: loaded %s; dropped %s; new %s", self.folder, item, *(
            by_module(part) for part in (loaded, dropped, {name: wanted[name] for name in new})))
        target = with_places(shapes, mesh)
        params = read_arrays(self.path, item, _prune(target, new), partial=True)
        return _merge(jax.tree.map(lambda x: None, target), params)

    def shapes(self, item: str = "params") -> Any:
        """The newest checkpoint's parameters (or another item) as a tree of ShapeDtypeStructs."""
        return read_shapes(self.path, item)

    def wait(self) -> None:
        """Blocks until what was saved is on disk."""
        if self._saver is not None:
            self._saver.wait()

    def close(self) -> None:
        """Waits for writes and lets the folder go."""
        saver, self._saver = self._saver, None
        if saver is not None:
            saver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.close()
        except CheckpointError as second:
            if error is None:
                raise
            logging.error("%s", second)  # the first is what the run ended for


def write_params(folder: str | Path, params: Any, config: dict[str, Any],
                 task_state: Mapping[str, Any] | None = None) -> None:
    """Writes a start: parameters as step 0, for `load_params`, not to go on training from.

    Nothing is copied on the way to disk, so that it takes no more memory than the parameters.

    Args:
      folder: made if need be.
      params: a tree of arrays by module.
      config: as plain values; at least the `model` section.
      task_state: what a task is to start with beside them, for `load_task_state`.

    Raises:
      CheckpointError: the folder already holds a checkpoint.
    """
    folder = folders.place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if folders.stored(folder):
        raise CheckpointError(f"{folder}: already holds a checkpoint; give another folder")
    folders.clean(folder)  # else Orbax removes what is half, by a library that knows patterns
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        (np.ndarray, handlers.NumpyHandler(deepcopy_host_arrays=False)))
    trees = {name: jax.tree.map(np.asarray, tree) for name, tree in
             {"params": params, TASK_STATE: task_state}.items() if tree}
    handlers_of = {name: ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
                   for name in trees} | {"meta": ocp.JsonCheckpointHandler()}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers_of)) as writer:
        writer.save(paths.plain(folders.begin(folder, 0)), ocp.args.Composite(
            **{name: ocp.args.PyTreeSave(tree) for name, tree in trees.items()},
            meta=ocp.args.JsonSave(describe(0, config, {}))), force=True)
    folders.commit(folder, 0, {name: checksums(tree) for name, tree in trees.items()})


def find_folder(path: str | Path) -> Path:
    """The folder of checkpoints: `path` itself, or `path/checkpoints` of a work folder."""
    inner = paths.parse(path) / LAST
    return inner if hosts.said_by_first(inner.is_dir()) else inner.parent


def describe(step: int, config: dict[str, Any], samples: dict[str, int],
             **more: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `meta` item of a checkpoint; of what is more, what is not None."""
    return {"format": FORMAT, "step": step, "samples": samples, "config": config,
            "versions": {name: importlib.metadata.version(name)
                         for name in ("jax", "flax", "optax", "orbax-checkpoint", "grain")}
            } | {name: dict(said) for name, said in more.items() if said is not None}


def module_of(name: str) -> str:
    """The module of a parameter's path: its first part, of heads the first two."""
    parts = name.split("/")
    return "/".join(parts[:2 if parts[0] == "heads" else 1])


def by_module(leaves: Mapping[str, Any]) -> str:
    """`vision 1,203,200, heads/vtc 8,321`: the parameters of each module, or "nothing"."""
    counts: dict[str, int] = {}
    for name, x in leaves.items():
        counts[module_of(name)] = counts.get(module_of(name), 0) + math.prod(x.shape)
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "nothing"


def _advice(missing: set[str]) -> str:
    modules = sorted({module_of(name) for name in missing})
    names = ", ".join(repr(name) for name in modules)
    return f"; to start fresh what is missing, name its module in allow_new: {names}"


def _flat(tree: Any) -> dict[str, Any]:
    return {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _require_equal(wanted: dict[str, Any], stored: dict[str, Any], folder: Path,
                   prefix: str = "", advice: str = "") -> None:
    missing = sorted(name for name in wanted if stored.get(name) is None)
    if missing:
        raise CheckpointError(f"{folder}: lacks {len(missing)} parameter(s) that the task needs, "
                              f"the first {missing[0]}{advice}")
    for name, x in wanted.items():
        if tuple(stored[name].shape) != tuple(x.shape):
            raise CheckpointError(f"{folder}: {prefix}{name} has shape "
                                  f"{tuple(stored[name].shape)}, but the config makes it "
                                  f"{tuple(x.shape)}")


def _prune(tree: dict[str, Any], names: set[str], prefix: str = "") -> dict[str, Any]:
    """The tree without the leaves of these names."""
    kept = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if inner := _prune(value, names, f"{name}/"):
                kept[key] = inner
        elif name not in names:
            kept[key] = value
    return kept


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `over` in their places."""
    return {key: value if key not in over
            else _merge(value, over[key]) if isinstance(value, dict) else over[key]
            for key, value in base.items()}
