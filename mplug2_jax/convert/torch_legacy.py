"""PyTorch's files from before version 1.6, read without PyTorch; BERT's `pytorch_model.bin` is one.

Five pickles stand one behind the other: a magic number, a version, what machine it was, what was
saved, and the keys of its storages; then the storages in this order, each behind the number of its
elements, always little-endian. Nothing is executed, as in `torch_zip`; there are no checksums.
"""

import mmap
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from mplug2_jax.convert import torch_pickle
from mplug2_jax.convert.stored import CheckpointFileError, StoredTensor
from mplug2_jax.convert.torch_pickle import PickleError, Storage, shown
from mplug2_jax.convert.torch_zip import check_view, mapped, view

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
BEGIN = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))  # of a pickle
KIND = "PyTorch's format from before version 1.6"


def is_legacy(path: Path) -> bool:
    """Whether a file begins as one of these; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(2) in BEGIN
    except OSError:
        return False


def read_legacy(path: Path) -> Any:
    """What was given to `torch.save`, as `torch_zip.read_torch` gives it.

    Raises:
      CheckpointFileError: not such a file, or a broken one.
    """
    storages: dict[str, Storage] = {}
    starts: dict[str, int] = {}  # known once all pickles are read

    def build(storage: Storage, offset: int, shape: tuple[int, ...],
              strides: tuple[int, ...]) -> StoredTensor:
        check_view(path, f"storage {storage.key}", storage.numel, offset, shape, strides)
        if storages.setdefault(storage.key, storage) != storage:
            raise PickleError(f"storage {storage.key} is said to be of two kinds")
        return StoredTensor(storage.dtype, shape,
                            partial(load, path, starts, storage, offset, shape, strides))

    # Mapped, for a length that is a lie cannot make it allocate.
    with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        pickles = cast(IO[bytes], file)
        try:
            if torch_pickle.load(pickles, build) != MAGIC:
                raise CheckpointFileError(f"{path}: a pickle, not a PyTorch checkpoint")
            if (version := torch_pickle.load(pickles, build)) != VERSION:
                raise PickleError(f"of version {shown(version, 20)}, not {VERSION}")
            torch_pickle.load(pickles, build)
            found = torch_pickle.load(pickles, build)
            keys = torch_pickle.load(pickles, build)
            starts |= find_storages(file, keys, storages)
        except PickleError as error:
            raise CheckpointFileError(f"{path}: {KIND}: {error}") from None
    return found


def find_storages(file: mmap.mmap, keys: Any, storages: dict[str, Storage]) -> dict[str, int]:
    """The byte at which each storage's elements begin.

    Raises:
      PickleError: one is missing, of an unknown dtype, or not there whole.
    """
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError("its list of storages is none")
    starts, at, size = {}, file.tell(), len(file)
    for key in keys:
        if key not in storages:
            raise PickleError(f"storage {key[:40]} is of a dtype that is not supported, or unused")
        storage = storages[key]
        numel = int.from_bytes(file[at:at + 8], "little")
        starts[key] = at + 8
        at += 8 + storage.numel * storage.dtype.itemsize
        if at > size:
            raise PickleError(f"truncated in storage {key[:40]}")
        if numel != storage.numel:
            raise PickleError(f"storage {key[:40]} has {numel} elements instead of "
                              f"{storage.numel}")
    if missing := sorted(storages.keys() - starts.keys()):
        raise PickleError(f"storage {missing[0][:40]} is missing")
    if at != size:
        raise PickleError(f"{size - at} bytes too many")
    return starts


def load(path: Path, starts: dict[str, int], storage: Storage, offset: int,
         shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """A read-only view of the file's own bytes.

    Raises:
      CheckpointFileError: they cannot be mapped.
    """
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    return view(mapped(path, starts[storage.key], storage), offset, shape, strides)
