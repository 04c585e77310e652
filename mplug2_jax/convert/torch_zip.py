"""Released PyTorch checkpoints (`torch.save` since version 1.6: a zip), read without PyTorch.

The archive's members are stored uncompressed, so a tensor is a view of the file. Nothing in the
file is executed (`torch_pickle`), every member's CRC is checked when it is first read, and
everything that is wrong ends in a CheckpointFileError of one line.
"""

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
from mplug2_jax.convert.torch_pickle import PickleError, Storage

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
CHUNK = 1 << 20
MAX_PICKLE = 1 << 28  # bytes; that of the released Large checkpoint is about half a MB


def read_torch(path: str | Path) -> Any:
    """What was given to `torch.save`, with a StoredTensor in the place of every tensor.

    Args:
      path: of a `.pth` or `.pt` file.

    Returns:
      Dicts, lists, tuples, numbers, strings and StoredTensors.

    Raises:
      CheckpointFileError: not a checkpoint, broken, or more than tensors and plain containers.
    """
    archive = Archive(Path(path))
    names = [name for name in archive.members if name.split("/", 1)[-1] == "data.pkl"]
    if any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.members):
        raise CheckpointFileError(f"{path}: a TorchScript program, not a checkpoint of tensors")
    if len(names) != 1:
        raise CheckpointFileError(f"{path}: a zip without a data.pkl: not a PyTorch checkpoint")
    root = names[0][:-len("data.pkl")]
    order = archive.members.get(f"{root}byteorder")
    if order is not None and archive.read(order) != b"little":
        raise CheckpointFileError(f"{path}: written on a big-endian machine; save it on a "
                                  "little-endian one")
    try:
        return torch_pickle.load(archive.read(archive.members[names[0]]),
                                 partial(build_tensor, archive, root))
    except PickleError as error:
        raise CheckpointFileError(f"{path}: {error}") from None


def build_tensor(archive: "Archive", root: str, storage: Storage, offset: int,
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
                        partial(load, archive, member, storage, offset, shape, strides))


def check_view(path: Path, name: str, numel: int, offset: int, shape: tuple[int, ...],
               strides: tuple[int, ...]) -> None:
    """Raises CheckpointFileError where a tensor reaches outside of its storage of `numel`."""
    if len(shape) != len(strides) or min((*shape, *strides, offset), default=0) < 0:
        raise CheckpointFileError(f"{path}: {name} has shape {shape}, strides {strides}, offset "
                                  f"{offset}: not a tensor")
    if len(shape) > 32 or math.prod(max(n, 1) for n in shape) >= 2 ** 56:
        raise CheckpointFileError(f"{path}: {name} has the absurd shape {shape}")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and last >= numel:
        raise CheckpointFileError(f"{path}: {name} of shape {shape} needs {last + 1} elements, "
                                  f"but its storage holds {numel}")


def load(archive: "Archive", member: zipfile.ZipInfo, storage: Storage, offset: int,
         shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """A read-only view of the file's own bytes; nothing is copied.

    Raises:
      CheckpointFileError: the bytes are not those that were written.
    """
    archive.check(member)
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    size = storage.dtype.itemsize
    try:
        elements = np.memmap(archive.path, np.uint8, "r", archive.start(member),
                             (storage.numel * size,)).view(storage.dtype)
    except (OSError, ValueError) as error:
        raise CheckpointFileError(f"{archive.path}: cannot be mapped: {error}") from None
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, [s * size for s in strides],
                                           writeable=False)


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
    if magic.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return ("PyTorch's format from before version 1.6; load and save it once with a newer "
                "PyTorch")
    return "not a PyTorch checkpoint (a zip written by torch.save)"
