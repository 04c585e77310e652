"""Reading a checkpoint, and seeing that it is as it was written; all hosts read together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from mplug2_jax.checkpoints import manifest
from mplug2_jax.checkpoints.checksums import checksums
from mplug2_jax.checkpoints.errors import CheckpointError, Damaged
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.machine import refusal
from mplug2_jax.parallel import hosts
from mplug2_jax.parallel.sharding import path_name

_T = TypeVar("_T")


def read_meta(folder: Path) -> dict[str, Any]:
    """The `meta` item of a checkpoint; Damaged where it cannot be read."""
    return hosts.said_by_first(_from_disk(folder, "meta", lambda: json.loads(
        (folder / manifest.META).read_text())))


def read_items(folder: Path) -> list[str]:
    """The names of a checkpoint's items but `meta`; Damaged where it cannot be read."""
    return hosts.said_by_first(_from_disk(folder, "its folder", lambda: sorted(
        path.name for path in folder.iterdir() if path.is_dir() and path.name != "meta")))


def read_shapes(folder: Path, item: str) -> Any:
    """An item of a checkpoint as a tree of ShapeDtypeStructs; Damaged where it cannot be read."""
    found = _from_disk(folder, item, lambda: ocp.StandardCheckpointHandler().metadata(
        paths.plain(folder / item))).tree
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), found)


def read_arrays(folder: Path, item: str, target: Any, partial: bool = False) -> Any:
    """An item of a checkpoint, compared with its checksums.

    Args:
      folder: of the checkpoint.
      item: its name.
      target: a tree of shapes with their dtypes and places.
      partial: whether the item may hold more.

    Raises:
      Damaged: it cannot be read, or is not as it was written.
    """
    written = {path_name(path): x for path, x in
               jax.tree_util.tree_leaves_with_path(read_shapes(folder, item))}
    # A checksum is of values as they were written.
    as_written = jax.tree_util.tree_map_with_path(lambda path, x: jax.ShapeDtypeStruct(
        x.shape, written[path_name(path)].dtype, sharding=x.sharding), target)
    places = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(dtype=x.dtype, sharding=x.sharding),
                          as_written)
    args = ocp.args.PyTreeRestore(as_written, restore_args=places, partial_restore=partial)
    found = _from_disk(folder, item, lambda: ocp.PyTreeCheckpointHandler().restore(
        paths.plain(folder / item), args=args))
    recorded = hosts.said_by_first(_from_disk(folder, manifest.NAME, lambda: manifest.arrays(
        folder).get(item)))
    if recorded is not None:
        # Of copies on several hosts each sums its own.
        wrong = list(hosts.totals({name: 1 for name, one in checksums(found).items()
                                   if None not in recorded[name] and recorded[name] != [*one[:2]]}))
        if wrong:
            more = f", and {len(wrong) - 1} more," if wrong[1:] else ""
            raise Damaged(folder, f"{item}: {wrong[0]}{more} is not what its checksum says")
    return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), found, target)


def _from_disk(folder: Path, item: str, read: Callable[[], _T]) -> _T:
    """What `read` gives; an error on all hosts where it fails on one of them.

    Raises:
      Damaged: files are not what they were. CheckpointError: the machine stands in the way.
    """
    wrong: dict[str, int] = {}
    try:
        found = read()
    except Exception as error:
        # Orbax hides what went wrong with a shard of several behind one that says nothing.
        told = error.__cause__ if type(error) is Exception and error.__cause__ else error
        if not isinstance(told, (ValueError, OSError, LookupError)):
            raise
        wrong = {("!" if refusal(told) else "") + manifest.said(told): 1}
    if lost := hosts.totals(wrong):
        why = next(iter(lost))  # "!" comes first
        if why.startswith("!"):
            raise CheckpointError(f"{folder}: {item} cannot be read: {why[1:]}")
        raise Damaged(folder, f"{item} cannot be read: {why}")
    return found
