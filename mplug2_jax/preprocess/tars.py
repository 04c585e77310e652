"""Where the members of a tar file lie; of its headers nothing is believed."""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mplug2_jax.contracts.paths import in_bucket

_MIB = 16
_HEADER = _MIB * 2**20  # bytes of names and of other facts that stand before a member
_FACTS = b"xgX"  # the types of headers that hold facts: each its length, a name, "=" and a value
_LENGTH = re.compile(rb"(\d+) ")
_DIGITS = re.compile(rb"\d{32,}")
_STEPS = 10**8  # of searches that take the square of how many digits stand in a row
_SPARSE = "is a sparse file in a tar: pack it without tar -S"
_GLOBAL = 1000  # facts of all members, which each of them copies


@dataclass(frozen=True)
class Member:
    """A file in a tar file.

    Attributes:
        name: with its folders.
        offset: its first byte in the tar file.
        size: its bytes; of the last one of a tar that is cut short, more than there are.
        fault: why they do not lie there one behind the other, as what follows its name; else "".
    """

    name: str
    offset: int
    size: int
    fault: str = ""


class _Headers(io.BufferedReader):
    """A file of which no more is read than headers are long, whatever they claim."""

    def __init__(self, path: Path):
        super().__init__(cast(Any, path).seekable() if in_bucket(path) else io.FileIO(path))
        self.bytes = path.stat().st_size
        self.held = 0  # bytes read since the last member
        self._type = b""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            raise tarfile.ReadError("a header claims a size below zero")
        self.held += size
        if self.held > _HEADER:
            raise tarfile.ReadError(f"a header of {self.held:,} bytes is longer than the limit of "
                                    f"{_MIB} MiB")
        if size > tarfile.BLOCKSIZE and size > self.bytes - self.tell():
            raise tarfile.ReadError(f"it ends in the middle of a header of {size:,} bytes")
        data = super().read(size)
        if size > tarfile.BLOCKSIZE and self._type in _FACTS:
            _check(data)
        self._type = data[156:157]
        return data


def _check(facts: bytes) -> None:
    """Refuses what tarfile would take the square of its length for.

    It looks for a number before certain names at every digit, and for the end of a fact's name
    beyond the fact.
    """
    if sum(len(digits)**2 for digits in _DIGITS.findall(facts)) > _STEPS:
        raise tarfile.ReadError("a header claims numbers of too many digits")
    at = 0
    while match := _LENGTH.match(facts, at):
        length = int(match[1])
        if facts.find(b"=", match.end(), at + length) < 0:
            raise tarfile.ReadError("a header claims a fact that is shorter than its name")
        at += length


def members(path: Path) -> Iterator[Member]:
    """The files in a tar file without compression, one after the other.

    Raises:
        tarfile.TarError: it is damaged, or cut short; all before came, last the one that is cut.
        OSError: it cannot be read.
    """
    try:
        with _Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # which it would keep
                file.held = 0
                if member.size < 0 or tar.offset <= member.offset:  # it would go round in rings
                    raise tarfile.ReadError("a header claims a size below zero")
                if len(tar.pax_headers) > _GLOBAL:
                    raise tarfile.ReadError(f"headers claim over {_GLOBAL:,} facts of all members")
                if not member.isreg():
                    continue
                fault = "" if _plain(member) else _SPARSE
                yield Member(member.name, member.offset_data, member.size, fault)
                if not fault and member.offset_data + member.size > file.bytes:
                    raise tarfile.ReadError(f"it ends in the middle of {member.name}, of which a "
                                            f"header claims {member.size:,} bytes")
    # Sizes that no file has; headers of headers without end; blocks that are not there.
    except (ValueError, OverflowError, EOFError, RecursionError, LookupError) as error:
        raise tarfile.ReadError(f"a header claims what cannot be: {error}") from None


def _plain(member: tarfile.TarInfo) -> bool:
    """Whether a member's bytes lie one behind the other: of a sparse one, where it has no holes."""
    extents = getattr(member, "sparse", None)  # offset and length of each
    return extents is None or [one for one in extents if one[1]] == (
        [(0, member.size)] if member.size else [])
