"""Where the members of a tar file lie; of its headers nothing is believed."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

_HEADER = 2**20  # bytes of a name or of other facts that stand before a member


class _Headers(io.BufferedReader):
    """A file of which nothing is read that is longer than a header, whatever it claims."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _HEADER:
            raise tarfile.ReadError("a header claims a name of another size")
        return super().read(size)


def members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The files in a tar file without compression, those that are whole, one after the other.

    Raises:
        tarfile.TarError: it is damaged; all before came.
        OSError: it cannot be read.
    """
    try:
        with (_Headers(io.FileIO(path)) as file,  # type: ignore[arg-type]
              tarfile.open(fileobj=file, mode="r:") as tar):
            while (member := tar.next()) is not None:
                tar.members.clear()  # which it would keep
                if member.size < 0 or tar.offset <= member.offset:  # it would go round in rings
                    raise tarfile.ReadError("a header claims a size below zero")
                if member.isreg() and not member.issparse():
                    yield member
    # Sizes that no file has; headers of headers without end.
    except (ValueError, OverflowError, EOFError, RecursionError) as error:
        raise tarfile.ReadError(f"a header claims what cannot be: {error}") from None
