"""PyTorch's files since version 1.6, zips, read without PyTorch: checkpoints, and the parameters of
TorchScript programs.

The archive's members are stored uncompressed, so a tensor is a view of the file. Nothing in the
file is executed (`torch_pickle`), every member's CRC is checked when it is first read, and
everything that is wrong ends in a CheckpointFileError of one line.
"""

import io
import math
import os
import struct
import weakref
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mplug2_jax.convert import torch_pickle
from mplug2_jax.convert.stored import CheckpointFileError, StoredTensor
from mplug2_jax.convert.torch_pickle import Opaque, PickleError, Storage, shown

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
CHUNK = 1 << 20
MAX_PICKLE = 1 << 28  # bytes; that of the released Large checkpoint is about half a MB
MAX_NAMES, MAX_DEPTH = 1 << 20, 64  # of a program's attributes


def read_torch(path: str | Path) -> Any:
    """What was given to `torch.save`, with a StoredTensor in the place of every tensor; of a
    TorchScript program its parameters and buffers by their names.

    Args:
      path: of a `.pth` or `.pt` file.

    Returns:
      Dicts, lists, tuples, numbers, strings, StoredTensors, and `Opaque`s for what is none of them.

    Raises:
      CheckpointFileError: not a checkpoint, or broken.
    """
    archive = Archive(Path(path))
    names = [name for name in archive.members if name.split("/", 1)[-1] == "data.pkl"]
    if len(names) != 1:
        raise CheckpointFileError(f"{path}: a zip without a data.pkl: not a PyTorch checkpoint")
    root = names[0][:-len("data.pkl")]
    order = archive.members.get(f"{root}byteorder")
    big = order is not None and archive.read(order) == b"big"
    try:
        found = torch_pickle.load(io.BytesIO(archive.read(archive.members[names[0]])),
                                  partial(build_tensor, archive, root, big))
    except PickleError as error:
        raise CheckpointFileError(f"{path}: {error}") from None
    if f"{root}constants.pkl" not in archive.members:
        return found
    return program_tensors(path, found)


def program_tensors(path: str | Path, program: Any) -> dict[str, StoredTensor]:
    """The tensors of a TorchScript program, named as its `state_dict()` does.

    Its objects have their parameters, buffers and submodules as attributes.

    Raises:
      CheckpointFileError: it is no program, or one of absurdly many parts.
    """
    found: dict[str, StoredTensor] = {}
    left, seen = [("", 0, program)], 0
    while left:
        prefix, depth, module = left.pop()
        if not isinstance(module, Opaque) or depth > MAX_DEPTH or seen > MAX_NAMES:
            raise CheckpointFileError(f"{path}: not a TorchScript program, or one of too many "
                                      "parts")
        for name, value in module.state.items():
            seen += 1
            if isinstance(value, StoredTensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Opaque) and value.state:
                left.append((f"{prefix}{name}.", depth + 1, value))
    return found


def build_tensor(archive: "Archive", root: str, big: bool, storage: Storage, offset: int,
                 shape: tuple[int, ...], strides: tuple[int, ...]) -> StoredTensor:
    """A tensor of one of the archive's storages, checked to lie within it."""
    name = f"{root}data/{storage.key}"
    member = archive.members.get(name)
    if member is None:
        raise CheckpointFileError(f"{archive.path}: the tensor file {name} is missing")
    if member.file_size != storage.numel * storage.dtype.itemsize:
        raise CheckpointFileError(
            f"{archive.path}: the tensor file {name} has {member.file_size} bytes, but "
            f"{storage.numel} elements of {storage.dtype} need "
            f"{storage.numel * storage.dtype.itemsize}")
    check_view(archive.path, name, storage.numel, offset, shape, strides)
    return StoredTensor(storage.dtype, shape,
                        partial(load, archive, member, big, storage, offset, shape, strides))


def check_view(path: Path, name: str, numel: int, offset: int, shape: tuple[int, ...],
               strides: tuple[int, ...]) -> None:
    """Raises CheckpointFileError where a tensor reaches outside of its storage of `numel`."""
    if max(len(shape), len(strides)) > 32:
        raise CheckpointFileError(f"{path}: {name} has {max(len(shape), len(strides))} dimensions: "
                                  "not a tensor")
    if len(shape) != len(strides) or min((*shape, *strides, offset), default=0) < 0:
        raise CheckpointFileError(f"{path}: {name} has shape {_sizes(shape)}, strides "
                                  f"{_sizes(strides)}, offset {shown(offset)}: not a tensor")
    if math.prod(max(n, 1) for n in shape) >= 2 ** 56:
        raise CheckpointFileError(f"{path}: {name} has the absurd shape {_sizes(shape)}")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and last >= numel:
        raise CheckpointFileError(f"{path}: {name} of shape {_sizes(shape)} needs "
                                  f"{shown(last + 1)} elements, but its storage holds {numel}")


def _sizes(numbers: tuple[int, ...]) -> str:
    return f"({', '.join(map(shown, numbers))})"


def load(archive: "Archive", member: zipfile.ZipInfo, big: bool, storage: Storage, offset: int,
         shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """A read-only view of the file's own bytes; nothing is copied but what is big-endian.

    Raises:
      CheckpointFileError: the bytes are not those that were written.
    """
    archive.check(member)
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    elements = mapped(archive.path, archive.start(member), storage)
    return view(elements.byteswap() if big else elements, offset, shape, strides)


def mapped(path: Path, start: int, storage: Storage) -> np.ndarray:
    """The elements `[numel]` of a storage, the file's own bytes.

    Raises:
      CheckpointFileError: they cannot be mapped.
    """
    try:
        return np.memmap(path, np.uint8, "r", start, (storage.numel * storage.dtype.itemsize,)
                         ).view(storage.dtype)
    except (OSError, ValueError) as error:
        raise CheckpointFileError(f"{path}: cannot be mapped: {error}") from None


def view(elements: np.ndarray, offset: int, shape: tuple[int, ...],
         strides: tuple[int, ...]) -> np.ndarray:
    """A tensor that `check_view` has found to lie within its storage; read-only."""
    return np.lib.stride_tricks.as_strided(
        elements[offset:], shape, [s * elements.dtype.itemsize for s in strides], writeable=False)


class Archive:
    """A zip file whose members are stored uncompressed.

    Args:
      path: of the file.

    Attributes:
      members: by name, what the zip's directory says of each.

    Raises:
      CheckpointFileError: not a zip, or a broken one.
    """

    def __init__(self, path: Path):
        self.path = path
        self._starts: dict[str, int] = {}
        self._checked: set[str] = set()
        try:
            self._file = open(path, "rb")  # for as long as its tensors are used
        except OSError as error:
            raise CheckpointFileError(f"{path}: {error.strerror}") from None
        weakref.finalize(self, self._file.close)
        magic = self._file.read(4)
        self._size = self._file.seek(0, os.SEEK_END)
        try:
            infos = zipfile.ZipFile(self._file).infolist()
        # `zipfile` documents no closed list of what a broken directory makes it raise.
        except Exception as error:
            raise CheckpointFileError(f"{path}: {not_a_zip(magic, error)}") from None
        self.members = {info.filename: info for info in infos}
        if len(self.members) != len(infos):
            raise CheckpointFileError(f"{path}: two members of the zip have the same name")

    def start(self, member: zipfile.ZipInfo) -> int:
        """The byte at which a member's data begins; its local header must agree."""
        name = member.filename
        if name in self._starts:
            return self._starts[name]
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise CheckpointFileError(f"{self.path}: the member {name} is compressed or encrypted, "
                                      "which torch.save never does")
        if not 0 <= member.header_offset < self._size:
            raise CheckpointFileError(f"{self.path}: the member {name} lies outside the file")
        self._file.seek(member.header_offset)
        header = self._file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size:
            raise CheckpointFileError(f"{self.path}: truncated at the member {name}")
        signature, _, _, method, *_, name_size, extra_size = LOCAL_HEADER.unpack(header)
        local_name = self._file.read(name_size)
        begin = member.header_offset + LOCAL_HEADER.size + name_size + extra_size
        expected = member.orig_filename.encode("utf-8", "replace")
        if signature != b"PK\x03\x04" or method != 0 or local_name != expected:
            raise CheckpointFileError(f"{self.path}: the member {name} is damaged: its header "
                                      "differs from the zip's directory")
        if member.file_size != member.compress_size or begin + member.file_size > self._size:
            raise CheckpointFileError(f"{self.path}: the member {name} of {member.file_size} bytes "
                                      "does not fit the file: truncated, or its size is absurd")
        self._starts[name] = begin
        return begin

    def check(self, member: zipfile.ZipInfo) -> None:
        """Compares a member's CRC, once, reading it in pieces.

        Raises:
          CheckpointFileError: the bytes are not those that were written.
        """
        if member.filename in self._checked:
            return
        crc, left = 0, member.file_size
        self._file.seek(self.start(member))
        while left:
            piece = self._file.read(min(CHUNK, left))
            if not piece:
                raise CheckpointFileError(f"{self.path}: truncated in {member.filename}")
            crc = zlib.crc32(piece, crc)
            left -= len(piece)
        if crc != member.CRC:
            raise CheckpointFileError(f"{self.path}: the member {member.filename} is damaged: its "
                                      "CRC is wrong; fetch the file again")
        self._checked.add(member.filename)

    def read(self, member: zipfile.ZipInfo) -> bytes:
        """A small member, whole."""
        if member.file_size > MAX_PICKLE:
            raise CheckpointFileError(f"{self.path}: the member {member.filename} of "
                                      f"{member.file_size} bytes is absurdly large")
        self.check(member)
        self._file.seek(self.start(member))
        return self._file.read(member.file_size)


def not_a_zip(magic: bytes, error: Exception) -> str:
    """Why a file could not be opened as a zip, by its first four bytes."""
    if magic.startswith(b"PK"):
        return f"a truncated or damaged zip ({error}); fetch the file again"
    return "not a PyTorch checkpoint (a zip written by torch.save)"
