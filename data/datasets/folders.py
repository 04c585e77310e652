"""The files of a folder by name, as people lay out media; links are followed, but in no ring.

A name is found whatever the capitals of its suffix, with any suffix of its kind, with several as
download tools leave them (`ID.mp4.webm`), or with none; blanks and underscores are one, and so are
the two ways of Unicode to write an accent. Otherwise capitals count: YouTube's ids differ by them.
The file that is called exactly so comes first, then the order of suffixes decides.
"""

import errno
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.files import IMAGES as IMAGE_SUFFIXES
from mplug2_jax.preprocess.files import VIDEOS as VIDEO_SUFFIXES

_ALL = frozenset(VIDEO_SUFFIXES + IMAGE_SUFFIXES)
# A name that can be no file's, or no folder's: then there is none.
_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP}
_REFUSED = {errno.EACCES, errno.EPERM}


def kind_of(name: str) -> str:
    """"video", "image", or "" of a file's name, by its suffix."""
    suffix = os.path.splitext(name)[1].lower()
    return "video" if suffix in VIDEO_SUFFIXES else "image" if suffix in IMAGE_SUFFIXES else ""


def without_suffix(name: str) -> str:
    """A media file's name without its suffix, if it has one that is known."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in _ALL else name


def medium_key(name: str) -> str:
    """What the names of one medium have in common."""
    while (stem := without_suffix(name)) != name and stem:
        name = stem
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).replace(" ", "_")


def hidden(path: str | os.PathLike) -> bool:
    """Whether a path, or a folder in it, is hidden, as the `._NAME` that Macs put beside a file."""
    return any(part.startswith(".") and part not in (".", "..") for part in Path(path).parts)


class Listing:
    """The names in one folder.

    Args:
        files, folders: what lies in it.

    Attributes:
        keys: by `medium_key` the files that have it, sorted.
    """

    def __init__(self, files: list[str], folders: list[str]):
        self.files, self.folders = frozenset(files), sorted(folders)
        self.keys: dict[str, list[str]] = {}
        for name in sorted(files):
            self.keys.setdefault(medium_key(name), []).append(name)
        for name in folders:  # one that is called like a medium is told of when it is read
            if kind_of(name):
                self.keys.setdefault(medium_key(name), []).append(name)

    def find(self, stem: str, suffixes: tuple[str, ...]) -> str | None:
        """The file of a name with or without a suffix, of one of these suffixes or of none."""
        asked = without_suffix(stem)
        ranks = {suffix: rank for rank, suffix in enumerate(suffixes)}

        def rank(name: str) -> tuple:
            own, suffix = os.path.splitext(name)
            return own not in (asked, stem), ranks[suffix.lower()], suffix != suffix.lower(), name

        if stem in self.files and os.path.splitext(stem)[1].lower() in ranks:
            return stem
        found = self.keys.get(medium_key(stem), ())
        fitting = [name for name in found if os.path.splitext(name)[1].lower() in ranks]
        if fitting:
            return min(fitting, key=rank)
        return stem if stem in self.files else None


class Folders:
    """The folders below one, each listed once.

    One that may not be looked into (`lost+found`) is left out, and said in a line.

    Args:
        root: what all paths are relative to.
    """

    def __init__(self, root: Path):
        self.root = root
        self._listed: dict[str, Listing] = {}

    def listing(self, folder: str) -> Listing:
        """What lies in a folder; nothing where it is none.

        Raises:
            DataError: it cannot be read, for a reason that is not its permissions.
        """
        folder = folder.rstrip(os.sep)
        if folder not in self._listed:
            self._listed[folder] = self._list(folder)
        return self._listed[folder]

    def _list(self, folder: str) -> Listing:
        files, folders = [], []
        try:
            with os.scandir(self.root / folder) as entries:
                for entry in entries:
                    (folders if _is_folder(entry) else files).append(entry.name)
        except ValueError:  # a zero byte in its name
            pass
        except OSError as error:
            if error.errno in _REFUSED:
                print(f"warning: {self.root / folder} is left out: {error.strerror}",
                      file=sys.stderr, flush=True)
            elif error.errno not in _NOWHERE:
                raise DataError(f"{self.root / folder} cannot be read: {error.strerror}") from error
        return Listing(files, folders)

    def inner(self, folder: str) -> list[str]:
        """The folders in one, without hidden ones; paths relative to the root."""
        return [os.path.join(folder, name) for name in self.listing(folder).folders
                if not name.startswith(".")]  # fmt: skip

    def walk(self, folder: str = "") -> Iterator[tuple[str, list[str]]]:
        """A folder and all below it, each with its files, sorted; none twice, though links may."""
        seen: set[str] = set()
        waiting = [folder]
        while waiting:
            place = waiting.pop()
            real = os.path.realpath(self.root / place)
            if real in seen:
                continue
            seen.add(real)
            yield place, sorted(self.listing(place).files)
            waiting += reversed(self.inner(place))


class Holding:
    """Which folders hold a name: one that is nowhere costs a look, not one into each of thousands.

    Args:
        tree: that they are of.
        parents: folders; they are listed one after the other, when a name is in none before.
        inner: what is below each of them.
    """

    def __init__(self, tree: Folders, parents: Iterable[str], inner: str):
        self._tree = tree
        self._rest = (os.path.join(parent, inner) for parent in parents)
        self._found: dict[str, list[str]] = {}

    def places(self, name: str) -> Iterator[str]:
        """The folders that hold a file of the name's `medium_key`, in the order of the parents."""
        wanted = medium_key(name)
        yield from tuple(self._found.get(wanted, ()))
        for folder in self._rest:
            keys = self._tree.listing(folder).keys
            for key in keys:
                self._found.setdefault(key, []).append(folder)
            if wanted in keys:
                yield folder


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a ring of links
        return False


def within(path: str) -> str | None:
    """A path that an annotation names, below the folder it is looked for in; None if it leaves it.

    "./a//b" is "a/b"; a path from the root of a machine is one from the folder.
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return None
    return os.path.normpath("/".join(parts)) if parts else None
