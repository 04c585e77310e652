"""From what a table calls a medium to the place where it is; nothing outside of what was named.

A name is looked for below the raw folder, then beside the table, then in the raw folder's
subfolders and theirs, without a suffix too, then in the tar files there. A path of another machine
is looked for by its longest ending, which begins at the raw folder. Whatever is found must lie,
links resolved, in the raw folder or in one of the further roots.
"""

import functools
import hashlib
import itertools
import os
import re
import tarfile
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

from data.datasets.own import opening
from data.datasets.own.arrow_files import Cell
from data.datasets.raw import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Media, Missing, RawFolder
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess import tars

IMAGES = (*IMAGE_SUFFIXES, ".jfif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2",
          ".j2k", ".ppm")
_TAR = re.compile(r"(?P<tar>.*?\.tar(?:\.\w+)?|.*?\.tgz)(?:::|#|!/|!|/)(?P<member>.+)", re.I | re.S)
_PACKED = re.compile(r"\.(tar\.\w+|tgz)$", re.I)
_HEADS = ((b"\xff\xd8\xff", 0), (b"\x89PNG", 0), (b"BM", 0), (b"II*\0", 0), (b"MM\0*", 0),
          (b"WEBP", 8), (b"ftypavif", 4), (b"ftypheic", 4), (b"ftypmif1", 4), (b"jP  ", 4),
          (b"\xff\x4f\xff\x51", 0))


class Places:
    """Where the media of a table are.

    Args:
        raw: the raw folder.
        roots: further folders in which they may lie.
        beside: folders that names may be relative to.
    """

    def __init__(self, raw: RawFolder, roots: list[Path], beside: list[Path]):
        self.raw, self._beside = raw, [raw.root, *beside, *roots]
        self._roots = [os.path.realpath(root) for root in (raw.root, *roots)]
        self._members = functools.cache(self._list_members)
        self._folded = functools.cache(self._list_folded)
        self._member_names: dict[tuple[str, int], str] = {}  # by tar and offset
        self._damage: dict[str, str] = {}  # of tars that cannot be read to their end

    def find(self, name: str) -> Media | list[Media] | Missing:
        """Where the medium of that name is; a list of images, where it is a folder of them.

        Raises:
            DataError: a package is missing that its address needs.
        """
        if name.startswith(opening.INLINE):
            return Media(name)
        if name.startswith("tar://"):  # fsspec's way: tar://MEMBER::FILE
            member, _, tar = name.removeprefix("tar://").partition("::")
            name = f"{tar}::{member}"
        elif name.casefold().startswith("file:"):
            name = _local(name)
        if kind := opening.protocol(name):
            if kind not in (*opening.WEB, *opening.STORES):
                return Missing(f"{name} ({kind}:// is no protocol that is opened)")
            opening.check_protocol(name)
            if "::" in name:
                return Missing(f"{name} (members of tar files are read from local ones)")
            return Media(name)
        tried = None
        for one in _spellings(name):
            found = self._path(one)
            if not isinstance(found, Missing):
                return found
            tried = tried or (found if found.expected != one else None)
        return tried or Missing(name)

    def name(self, media: Media | list[Media]) -> str:
        """What a medium is called wherever it is named: its path in the raw folder, or address."""
        if isinstance(media, list):
            return os.path.dirname(media[0].path)
        if media.path.startswith(opening.INLINE):
            return f"data:{hashlib.sha256(media.path.encode()).hexdigest()[:16]}"
        return self._member_names.get((media.path, media.offset), media.path)

    def _path(self, name: str) -> Media | list[Media] | Missing:
        if "\0" in name or not name.strip("/. "):
            return Missing(name)
        outside = None
        for found in self._candidates(name):
            real = os.path.realpath(found)
            if not any(real == root or real.startswith(root.rstrip(os.sep) + os.sep)
                       for root in self._roots):
                outside = outside or found
                continue
            if os.path.isdir(found):
                return self._folder(found)
            return Media(self._named(found))
        if match := _TAR.fullmatch(name):
            tar = self._path(match["tar"])
            if isinstance(tar, Media):
                return self._member(tar.path, match["member"])
            outside = outside or (tar.expected if isinstance(tar, Missing)
                                  and tar.expected != match["tar"] else None)
            return Missing(f"{name} ({outside})" if outside else name)
        if outside:
            return Missing(f"{name} (it lies outside of --raw={self.raw.root}, at {outside}; "
                           "--roots=FOLDER allows that)")
        return self._in_tars(name)

    def _candidates(self, name: str) -> Iterator[str]:
        """Files and folders that a name may mean, the likeliest first."""
        for base in self._beside:
            path = os.path.join(base, name)
            if os.path.isfile(path) or os.path.isdir(path):
                yield path
        if name.startswith("/") and os.path.exists(name):
            return  # not another of the same name
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        # A path of elsewhere by its endings; another is looked for in subfolders as it is.
        starts = range(len(parts)) if name.startswith("/") else range(1)
        for start in starts:
            tail = "/".join(parts[start:])
            # A shortened path has folders of its own: below another one it is another medium.
            where = ("",) if start else ()
            for look in self._looks(tail):
                found = look(tail, *where)
                path = self.raw.root / found.path if isinstance(found, Media) else None
                if path and path.is_file():
                    yield str(path)
        for base in self._beside:  # capitals, which Windows and Macs do not tell apart
            folder, last = os.path.split(os.path.join(base, name))
            like = self._folded(folder).get(last.casefold(), [])
            if len(like) == 1 and os.path.isfile(os.path.join(folder, like[0])):
                yield os.path.join(folder, like[0])

    def _looks(self, name: str) -> list[Callable[..., Media | Missing]]:
        """How a name is looked for; one that says a kind is none of the other."""
        suffix = os.path.splitext(name)[1].lower()
        by_kind = [look for look, others in ((self.raw.video, IMAGES),
                                             (self.raw.image, VIDEO_SUFFIXES))
                   if suffix not in others]
        return [self.raw.exactly, *by_kind]

    def _list_folded(self, folder: str) -> dict[str, list[str]]:
        """The names in a folder by what they are without capitals."""
        found: dict[str, list[str]] = {}
        try:
            for name in os.listdir(folder):
                found.setdefault(name.casefold(), []).append(name)
        except OSError:
            pass
        return found

    def _named(self, path: str) -> str:
        """A path relative to the raw folder where it lies in it, else as a whole."""
        root = os.path.abspath(self.raw.root)
        whole = os.path.abspath(path)
        if whole.startswith(root.rstrip(os.sep) + os.sep):
            return os.path.relpath(whole, root)
        real, real_root = os.path.realpath(path), self._roots[0]
        return (os.path.relpath(real, real_root)
                if real.startswith(real_root.rstrip(os.sep) + os.sep) else whole)

    def _folder(self, path: str) -> list[Media] | Missing:
        """The images of a folder, 2 before 10; all of them must lie where they may."""
        names = sorted((name for name in os.listdir(path)
                        if name.lower().endswith(IMAGES) and not name.startswith(".")), key=_order)
        found = [self._path(os.path.join(os.path.abspath(path), name)) for name in names]
        if lost := next((one for one in found if not isinstance(one, Media)), None):
            return Missing(lost.expected if isinstance(lost, Missing) else path)
        media = [one for one in found if isinstance(one, Media)]
        return media or Missing(f"{path} (a folder without images)")

    def _member(self, tar: str, name: str) -> Media | Missing:
        if _PACKED.search(tar):
            return Missing(f"{name} of {tar} (it is compressed: unpack it to .tar)")
        found = self._members(tar).get(os.path.normpath(name))
        damage = self._damage.get(tar)
        return found or Missing(f"{name} of {tar} (it has no such file"
                                + (f" in what can be read: {damage})" if damage else ")"))

    def _list_members(self, tar: str) -> dict[str, Media | Missing]:
        """The files of a tar by their names; of one that is cut short those before the cut."""
        found: dict[str, Media | Missing] = {}
        try:
            for member in tars.members(self.raw.root / tar):
                inner = os.path.normpath(member.name)
                found[inner] = (Missing(f"{inner} of {tar} (it {member.fault})", odd=True)
                                if member.fault else Media(tar, member.offset, member.size))
                self._member_names[tar, member.offset] = f"{tar}/{inner}"
        except (tarfile.TarError, OSError) as error:
            self._damage[tar] = (error.strerror if isinstance(error, OSError) else "") or str(error)
        return found

    @functools.cached_property
    def _tars(self) -> dict[str, list[Media | Missing]]:
        """The members of all tars of the raw folder, by name, by its end, and without suffixes."""
        found: dict[str, list[Media | Missing]] = {}
        for path in sorted(itertools.chain(*(self.raw.root.glob(f"{deep}*.tar")
                                             for deep in ("", "*/", "*/*/")))):
            tar = self._path(os.path.abspath(path))
            for name, media in (self._members(tar.path) if isinstance(tar, Media) else {}).items():
                if name.lower().endswith((*IMAGES, *VIDEO_SUFFIXES)):
                    base = os.path.basename(name)
                    for key in {name, base, os.path.splitext(name)[0], os.path.splitext(base)[0]}:
                        found.setdefault(key, []).append(media)
        return found

    def _in_tars(self, name: str) -> Media | Missing:
        media = self._tars.get(os.path.normpath(name), [])
        if len(media) > 1:
            return Missing(f"{name} (in tar files there are {len(media)} of this name: "
                           "TAR/MEMBER says which)")
        return media[0] if media else Missing(name)


def _spellings(name: str) -> list[str]:
    """A path as it is, then as Windows, addresses and other file systems write it."""
    found = [name]
    if re.search(r"\\|^[A-Za-z]:/", name):
        found.append(re.sub(r"^[A-Za-z]:", "", name).replace("\\", "/"))
    if "%" in name:
        found.append(urllib.parse.unquote(name))
    # Of one letter with a mark, Macs make two.
    found += [unicodedata.normalize(form, one) for one in found for form in ("NFC", "NFD")
              if not one.isascii()]
    return list(dict.fromkeys(found))


def cell(found: Cell, raw: RawFolder) -> Media:
    """The place of a medium that a table holds."""
    file = os.path.relpath(os.path.realpath(found.file), os.path.realpath(raw.root))
    file = os.path.realpath(found.file) if file.startswith("..") else file
    column = urllib.parse.quote(found.column, safe="")
    return Media(f"{opening.CELL}{column}:{file}", found.row, found.number)


def kind(name: str, media: Media, raw: RawFolder, head: bytes = b"") -> str:
    """"image" or "video": by the suffix of a name, or by the first bytes.

    Args:
        name: of the medium (`Places.name`).
        media: its place.
        raw: the raw folder.
        head: its first bytes, if they are known.
    """
    path = urllib.parse.urlsplit(name).path if opening.protocol(name) else name
    for one in (path, media.path):
        suffix = os.path.splitext(one)[1].lower()
        if suffix in IMAGES or one.startswith("data:image/"):
            return "image"
        if suffix in VIDEO_SUFFIXES or one.startswith("data:video/"):
            return "video"
    if not head:
        local = not opening.protocol(media.path)
        try:
            start = Media(media.path, media.offset, 64 if local else -1)
            head = opening.read_media(raw.root, start)[:64]
        except MediaError:
            return "video"  # whatever it is, it will be said when it is read
    return "image" if any(head[at:].startswith(mark) for mark, at in _HEADS) else "video"


def _local(address: str) -> str:
    """The path of a `file:` address."""
    rest = address[len("file:"):]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path if host.casefold() in ("", "localhost") else f"{host}/{path}"
    return urllib.parse.unquote(re.sub(r"^/(?=[A-Za-z]:)", "", rest))


def _order(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.casefold())]

