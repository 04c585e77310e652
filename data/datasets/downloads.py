"""Which row of a table a downloaded file is of: by its address, its row's number or its own name.

img2dataset and video2dataset write `SHARD/KEY.jpg` (or `.mp4`) with a `.json` beside that has the
address, a `SHARD.parquet` with those of a shard, and a `SHARD_stats.json` with its number of rows.
The key is the shard's number and behind it that within the shard, of as many digits as the size of
a shard takes: so keys have gaps where that is no power of ten. The first versions began each
shard's keys at 0.
"""

import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet

from data.datasets import beside
from data.datasets.raw import Media, Missing, RawFolder, group_by, kind_of, without_suffix
from data.datasets.texts import read_json
from mplug2_jax.contracts.errors import DataError

# Sizes that a number of rows and of shards leave open may differ by this share; of these the
# roundest is meant, for sizes are chosen by people.
_OPEN = 0.02


@dataclass(frozen=True)
class _Sharded:
    """A file in a shard's folder; `digits` of its key count within the shard, 0 if all do."""

    shard: int
    index: int
    digits: int
    path: str


class Downloads:
    """The files of some folders, at any depth.

    Args:
        raw: the folder.
        folders: those that they may lie in; others are not looked into.
        kind: "image" or "video".
        named: whether they may be called by the name that their address ends with.
        rows: gives how many rows there are.
    """

    def __init__(self, raw: RawFolder, folders: tuple[str, ...], kind: str,
                 rows: Callable[[], int], named: bool = False):  # fmt: skip
        self._raw, self._kind = raw, kind
        self.folders = [place for place in folders if (raw.root / place).is_dir()]
        self._numbered: dict[int, str] = {}
        self._named: dict[str, str] = {}
        self._addressed: dict[int, list[str]] = {}
        sharded: dict[str, list[_Sharded]] = {}  # by the folder of the shards' folders
        for folder in self.folders:
            for place, names in raw.tree.walk(folder):
                for name in names:
                    if kind_of(name) == kind:
                        self._add(os.path.join(place, name), sharded, named)
        for above, files in sharded.items():
            self._add_sharded(above, sorted(files, key=lambda one: one.path), rows)

    def _add(self, path: str, sharded: dict[str, list[_Sharded]], named: bool) -> None:
        folder, name = os.path.split(path)
        key, (above, shard) = without_suffix(name), os.path.split(folder)
        if named:
            self._named.setdefault(key, path)
        if not (key.isascii() and key.isdecimal()):
            return
        if shard.isascii() and shard.isdecimal():
            inside = len(key) > len(shard) and key.startswith(shard)
            index, digits = (int(key[len(shard):]), len(key) - len(shard)) if inside else (
                int(key), 0)
            sharded.setdefault(above, []).append(_Sharded(int(shard), index, digits, path))
        else:
            self._numbered.setdefault(int(key), path)

    def _add_sharded(self, above: str, files: list[_Sharded], rows: Callable[[], int]) -> None:
        """Finds the rows of files in shards: by addresses, else by numbers."""
        left = []
        by_shard = group_by(files, lambda one: os.path.dirname(one.path))
        for shard, own in by_shard.items():
            addresses = dict(self._addresses(shard, own))
            for one in own:
                if one.path in addresses:
                    address = hash(addresses[one.path].strip())
                    self._addressed.setdefault(address, []).append(one.path)
                else:
                    left.append(one)
        if not left:
            return
        restart = not any(one.digits for one in left)
        if restart and len({one.index for one in left}) == len(left):
            starts = {one.shard: 0 for one in left}  # no shards: just folders with numbers
        else:
            starts = self._starts(above, left, rows)
        for one in left:
            self._numbered.setdefault(starts[one.shard] + one.index, one.path)

    def _addresses(self, shard: str, files: list[_Sharded]) -> Iterator[tuple[str, str]]:
        """(path, address) of the files of a shard, as far as its table or those beside say them."""
        keys: dict[str, str] = {}
        table = Path(self._raw.root / f"{shard}.parquet")
        if table.is_file():
            try:
                read = parquet.read_table(table, columns=["key", "url"])
                keys = {str(key): url for key, url in zip(
                    read["key"].to_pylist(), read["url"].to_pylist(), strict=True) if url}
            except (ValueError, OSError, KeyError):  # cut, or of another tool
                keys = {}
        for one in files:
            stem = without_suffix(os.path.basename(one.path))
            address = keys.get(stem) or self._beside(shard, stem)
            if address:
                yield one.path, address

    def _beside(self, folder: str, stem: str) -> str:
        if f"{stem}.json" not in self._raw.tree.listing(folder).files:
            return ""
        try:
            said = beside.meta(beside.content_of(self._raw.root / folder / f"{stem}.json"))
        except (ValueError, OSError):
            return ""
        return said["url"] if isinstance(said.get("url"), str) else ""

    def _starts(self, above: str, files: list[_Sharded], rows: Callable[[], int]) -> dict[int, int]:
        """The row that each shard begins with.

        Raises:
            DataError: it cannot be told.
        """
        last = max(one.shard for one in files)
        if last == 0:
            return {0: 0}
        width = len(os.path.basename(os.path.dirname(files[0].path)))
        counts = [self._count(os.path.join(above, f"{shard:0{width}d}")) for shard in range(last)]
        if None not in counts:
            return {shard: sum(counts[:shard]) for shard in range(last + 1)}
        size = shard_size(rows(), last + 1, max(one.index for one in files) + 1,
                          max(one.digits for one in files))
        if size is None:
            raise DataError(
                f"{self._raw.root / above} has shards of img2dataset of unknown size: put their "
                "NNNNN_stats.json or NNNNN.parquet back beside their folders, or the .json beside "
                "their images, which say whose caption is whose")
        return {shard: shard * size for shard in range(last + 1)}

    def _count(self, shard: str) -> int | None:
        path = self._raw.root / f"{shard}_stats.json"
        try:
            count = read_json(path).get("count") if path.is_file() else None
        except (DataError, AttributeError):
            return None
        return count if isinstance(count, int) else None

    def addressed(self, address: str) -> Media | None:
        """The file that was had from an address; of several in their order, the last one again."""
        same = self._addressed.get(hash(address.strip()))
        return Media(same.pop(0) if len(same) > 1 else same[0]) if same else None

    def find(self, number: int, address: str) -> Media | Missing:
        """The file of a row, from 0 on."""
        if found := self.addressed(address):
            return found
        own = without_suffix(address.rsplit("/", 1)[-1])
        if path := self._named.get(own) or self._numbered.get(number):
            return Media(path)
        if self.folders:
            # As frequent download scripts call them: the checksum of the address.
            checksum = zlib.crc32(address.encode())
            for name in (f"{number}_{checksum}", str(checksum)):
                find = self._raw.image if self._kind == "image" else self._raw.video
                found = find(name, *self.folders)
                if isinstance(found, Media):
                    return found
        return Missing(f"{'|'.join(self.folders) or 'images'}/{number}")


def shard_size(rows: int, shards: int, least: int, digits: int) -> int | None:
    """How many rows a shard of img2dataset has, or None where that cannot be told.

    Args:
        rows: of the table.
        shards: how many there are.
        least: the size is not below this: the largest number within a shard, and 1.
        digits: of the key that count within a shard; 0 where that says nothing.
    """
    low, high = least, (rows - 1) // (shards - 1)
    if digits:
        low, high = max(low, 10 ** (digits - 1) + 1), min(high, 10**digits)
        if high == 10**digits and least > 0.9 * high:
            return high
    whole = math.ceil(rows / shards)  # if all shards are there
    if low <= whole:
        low = whole
    if low > high or high - low > _OPEN * high:
        return None
    step = 10 ** int(math.log10(high))
    while step > 1 and high // step * step < low:
        step //= 10
    found = high // step * step
    return found if step == 1 and low == high or found - step < low else None


def caption_beside(raw: RawFolder, media: Media) -> list[str] | None:
    """The captions in the `.txt` or `.json` beside a file; None without such a file.

    Raises:
        ValueError: it says none.
    """
    folder, name = os.path.split(media.path)
    stem, files = without_suffix(name), raw.tree.listing(folder).files
    have = [suffix for suffix in (".txt", ".json") if stem + suffix in files]

    def content(suffix: str) -> bytes:
        try:
            return beside.content_of(raw.root / folder / (stem + suffix))
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror or error}") from None

    return beside.fields(have, content).get("texts") if have else None
