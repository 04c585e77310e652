"""Paths of buckets, `gs://...` and `s3://...`, with the methods that files have, by fsspec.

An object is no file. It is there once all of it was written, so that nothing is renamed; it cannot
be added to, so that a log is written anew (`Log`); and a folder is what the names of objects begin
with: it need not be made, and one without objects is empty.
"""

import contextlib
import errno
import fnmatch
import functools
import importlib.util
import io
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import fsspec
from etils.epath.gpath import PosixGPath

from mplug2_jax.contracts.errors import ConfigError

EXTRAS = {"gs": "gcsfs", "s3": "s3fs"}  # of the package, each called as the scheme: what they add
LEAST = 10.0  # seconds from one writing of a log to the next
SHARE = 0.01  # of the time that they take at most
# Of this machine, whose disk a copy goes to or whose handles a connection needs.
_OWN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE)
_AT_ONCE = 16  # requests
_AROUND = 2**18  # bytes that are read at once where some are asked for
_LONGEST = 240  # characters that are told of an error


class Stat(NamedTuple):
    """What is known of an object: bytes, when it was written, seconds since 1970, and a mark.

    The mark tells it from others that had its name.
    """

    st_size: int
    st_mtime: float
    mark: str


class Bucket(PosixGPath):
    """A path of a bucket.

    What goes wrong is an OSError that names the path, whatever the library raises: EREMOTEIO where
    the store cannot be reached, EACCES where it refuses.
    """

    @property
    def store(self) -> Any:
        """The file system of fsspec."""
        return filesystem(self.parts[1])

    def _info(self) -> dict[str, Any] | None:
        with named(self), contextlib.suppress(FileNotFoundError):
            return self.store.info(str(self))
        return None

    def exists(self) -> bool:
        return self._info() is not None

    def is_file(self) -> bool:
        return (self._info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        return (self._info() or {}).get("type") == "directory"

    def stat(self) -> Stat:
        found = self._info()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return _stat(found)

    def listing(self) -> tuple[dict[str, Stat], list[str]]:
        """What is directly within, sorted: the objects by name, and the folders; one request."""
        with named(self):
            try:
                found = self.store.ls(str(self), detail=True)
            except FileNotFoundError:
                found = []
        own, files, folders = str(self).partition("://")[2], {}, []
        for one in sorted(found, key=lambda one: one["name"]):
            path = one["name"].rstrip("/")
            name = path.rpartition("/")[2]
            if len(path) > len(own) and one["type"] == "directory":
                folders.append(name)
            elif len(path) > len(own):
                files[name] = _stat(one)
        return files, folders

    def iterdir(self) -> Iterator["Bucket"]:
        files, folders = self.listing()
        return iter([self / name for name in sorted({*files, *folders})])

    def sizes(self) -> dict[str, int]:
        """Bytes of all objects below, by their names from here on; one listing."""
        return {name: one["size"] for name, one in self._listed().items()
                if not name.endswith("/")}

    def _listed(self) -> dict[str, Any]:
        """All below, also the empty objects by which consoles show folders, "NAME/"."""
        with named(self):
            try:
                found = self.store.find(str(self), detail=True)
            except FileNotFoundError:
                found = {}
        start = len(str(self).partition("://")[2]) + 1
        return {name[start:]: one for name, one in sorted(found.items()) if name[start:]}

    def glob(self, pattern: str) -> Iterator["Bucket"]:
        return iter([one for one in self.iterdir() if fnmatch.fnmatch(one.name, pattern)])

    def rglob(self, pattern: str) -> Iterator["Bucket"]:
        return iter([self / name for name in self.sizes()
                     if fnmatch.fnmatch(name.rpartition("/")[2], pattern)])

    def read_bytes(self) -> bytes:
        with named(self):
            return self.store.cat_file(str(self))

    def read_range(self, offset: int, size: int) -> bytes:
        """Bytes from an offset on; fewer where the object ends before."""
        if size <= 0:
            return b""
        with named(self):
            return self.store.cat_file(str(self), start=offset, end=offset + size)

    def seekable(self) -> Any:
        """The object, open for reading here and there: a part of it is read with what follows."""
        with named(self):
            return self.store.open(str(self), "rb", block_size=_AROUND)

    def read_text(self, encoding: str | None = None) -> str:
        # Ends of lines as of a file.
        return io.StringIO(self.read_bytes().decode(encoding or "utf-8"), newline=None).getvalue()

    def write_bytes(self, data: bytes) -> int:
        with named(self):
            self.store.pipe_file(str(self), data)
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
        self.write_bytes(data.encode(encoding or "utf-8"))
        return len(data)

    def open(self, mode: str = "r", *, encoding: str | None = None,
             newline: str | None = None) -> Any:
        """Opens an object, which is read at once, or written when it is closed, all of it."""
        if "r" not in mode:
            return _Bytes(self) if "b" in mode else _Text(self, newline)
        raw = io.BytesIO(self.read_bytes())
        return raw if "b" in mode else io.TextIOWrapper(
            raw, encoding=encoding or "utf-8", newline=newline)

    def stream(self, chunks: Iterable[bytes]) -> None:
        """Writes the object as its chunks come, in parts; after an error there is none."""
        with named(self):
            file = self.store.open(str(self), "wb")
        try:
            for chunk in chunks:
                with named(self):
                    file.write(chunk)
        except BaseException:
            file.discard()
            file.closed = True  # or it would be finished when nobody knows it any more
            raise
        with named(self):
            file.close()

    def upload(self, file: str | os.PathLike[str]) -> None:
        """Writes the object from a file of this machine, in parts."""
        with named(self):
            self.store.put_file(os.fspath(file), str(self))

    def download(self, file: str | os.PathLike[str]) -> None:
        """Writes a file of this machine from the object, in parts."""
        with named(self):
            self.store.get_file(str(self), os.fspath(file))

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: there are no folders to make."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with named(self):
                self.store.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, missing_ok: bool = True) -> None:
        """Removes all objects below, by their very names: fsspec's takes "[12]" for a pattern."""
        with named(self), ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._remove, self._listed()))

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.store.rm_file(f"{self}/{name}")

    def copy_tree(self, to: "Bucket") -> None:
        """Copies all objects below, within the store."""
        for name in self.sizes():
            with named(self / name):
                self.store.cp_file(str(self / name), str(to / name))

    def absolute(self) -> "Bucket":
        return self

    def resolve(self, strict: bool = False) -> "Bucket":
        return self

    def is_absolute(self) -> bool:
        return True


class _Written(io.IOBase):
    """What is written to an object, which becomes it when it is closed but for an error's sake."""

    _path: Bucket

    def close(self) -> None:
        try:
            if not self.closed:
                content = cast(Any, self).getvalue()
                self._path.write_bytes(content.encode() if isinstance(content, str) else content)
        finally:
            super().close()  # else it is tried again when nobody knows the object any more

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is not None:
            super().close()
        self.close()


class _Bytes(_Written, io.BytesIO):
    def __init__(self, path: Bucket):
        super().__init__()
        self._path = path


class _Text(_Written, io.StringIO):
    def __init__(self, path: Bucket, newline: str | None):
        super().__init__(newline="\n" if newline is None else newline)
        self._path = path


class Log:
    """A log in a bucket: an object that is written anew as a whole.

    Not at each `flush`: at most every `LEAST` seconds, and so seldom that it takes no more than
    `SHARE` of the time. `settle` and `close` write what is left.

    Args:
      path: of the object.
      fresh: whether it begins empty; else what it holds stays.

    Attributes:
      name: of the object.
    """

    def __init__(self, path: Bucket, fresh: bool = False):
        self._path, self.name = path, str(path)
        self._content = bytearray(b"" if fresh or not path.exists() else path.read_bytes())
        self._written = -1 if fresh else len(self._content)
        self._next = time.monotonic()

    def write(self, what: str | bytes) -> None:
        self._content += what.encode() if isinstance(what, str) else what

    def flush(self) -> None:
        if time.monotonic() >= self._next:
            self.settle()

    def settle(self) -> None:
        """Writes all that was given."""
        if len(self._content) == self._written:
            return
        start = time.monotonic()
        self._path.write_bytes(bytes(self._content))
        self._written, now = len(self._content), time.monotonic()
        self._next = now + max(LEAST, (now - start) / SHARE)

    def close(self) -> None:
        self.settle()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _stat(info: dict[str, Any]) -> Stat:
    changed = info.get("mtime") or info.get("LastModified")
    return Stat(info["size"] or 0, changed.timestamp() if changed else 0.0,
                str(info.get("generation") or info.get("ETag")))


def filesystem(scheme: str) -> Any:
    """That of a scheme of `EXTRAS`; ConfigError where its package is not installed."""
    _prepare(scheme)
    return fsspec.filesystem(scheme)  # one a process: it has threads, which do not fork


@functools.cache
def _prepare(scheme: str) -> None:
    package = EXTRAS[scheme]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{scheme}:// needs {package}, which is not installed: "
                          f'pip install "mplug2_jax[{scheme}]"')
    # Others write there, too: what was listed once is not what is there.
    for protocol in fsspec.get_filesystem_class(scheme).protocol:
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)


@contextlib.contextmanager
def named(path: object) -> Iterator[None]:
    """Raises OSError, which names the path, for whatever the library raises.

    EREMOTEIO where the store cannot be reached, EACCES where it refuses; ConfigError as it is.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except (ConfigError, IsADirectoryError, NotADirectoryError):
        raise
    except Exception as error:
        if getattr(error, "errno", None) in _OWN:
            raise
        said = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        refused = getattr(error, "errno", None) in (errno.EACCES, errno.EPERM) or any(
            word in said.lower() for word in ("forbidden", "access denied", "permission"))
        raise OSError(errno.EACCES if refused else errno.EREMOTEIO, said, str(path)) from error
