"""Text as JSON lines, a document a line: Wikipedia as WikiExtractor writes it, C4, one's own."""

import bz2
import fnmatch
import functools
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from data.datasets.folders import hidden
from data.datasets.raw import Dataset, Entry, Missing, RawFolder
from data.datasets.split_names import SPLITS, words
from data.datasets.text_folder import passages
from data.datasets.texts import decoded
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import machine_error

_OPEN = {".gz": gzip.open, ".bz2": bz2.open}
_LINES = ("*.jsonl", "*.jsonl.gz", "*.jsonl.bz2", "*.json.gz", "*.json.bz2")


def read(raw: RawFolder, names: tuple[str, ...]) -> dict[str, Iterable[Entry]]:
    """The `text` of every line, as records of `text_folder.PASSAGE_WORDS` words.

    A file belongs to the split that a folder above it is named after, or that its own name says, in
    any capitals (`split_names`): `c4-validation.00000-of-00008.json.gz` is of `val`. All others are
    `train`.

    Args:
        raw: the folder; files are looked for at any depth.
        names: patterns of file names; each may be compressed.

    Raises:
        DataError: there is no such file.
    """
    splits: dict[str, list[Path]] = {}
    for path in _files(raw, names):
        splits.setdefault(_split(path.relative_to(raw.root)), []).append(path)
    if not splits:
        raise DataError(f"--raw={raw.root} holds none of {', '.join(names)}, at any depth")
    order = [split for split in ("train", "val", "test") if split in splits]
    return {split: _entries(raw.root, splits[split]) for split in order}


def _files(raw: RawFolder, names: tuple[str, ...]) -> list[Path]:
    """The files of these names, sorted; one that is there unpacked as well is taken once."""
    found: dict[Path, Path] = {}
    for folder, files in raw.tree.walk():
        for name in files:
            if not hidden(name) and any(fnmatch.fnmatch(name, pattern) for pattern in names):
                path = raw.root / folder / name
                found.setdefault(path.with_suffix("") if path.suffix in _OPEN else path, path)
    return sorted(found.values())


def _split(path: Path) -> str:
    """`train`, `val` or `test` of a file, relative to the raw folder."""
    for said in (*map(str.casefold, path.parts[:-1]), *words(path.name)):
        if said in SPLITS:
            return SPLITS[said]
    return "train"


def _entries(root: Path, files: list[Path]) -> Iterator[Entry]:
    for path in files:
        name, number = path.relative_to(root), 0
        try:
            with _open(path) as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield from _document(f"{name}:{number}", line)
        # Downloads that were interrupted leave cut files: what came before the cut is used.
        except (EOFError, OSError, zlib.error) as error:
            if refused := machine_error(error, path):
                raise refused from error
            reason = " ".join(str(error).split())
            yield Entry(f"{name}:{number + 1}", "text",
                        Missing(f"the rest of {name} from line {number + 1} on ({reason})"), {})


def _open(path: Path) -> IO[bytes]:
    return _OPEN.get(path.suffix, open)(path, "rb")


def _document(name: str, line: bytes) -> Iterator[Entry]:
    """The records of a line; of one that is damaged, a record that is missing."""
    try:
        text = json.loads(decoded(line))["text"]
        if not isinstance(text, str):
            raise TypeError(f"its text is {type(text).__name__}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = "no text" if isinstance(error, KeyError) else " ".join(str(error).split())
        yield Entry(name, "text", Missing(f"a JSON object with a text ({reason})"), {})
        return
    yield from passages(name, text)


def _dataset(name: str, summary: str, names: tuple[str, ...]) -> Dataset:
    return Dataset(name, summary, "text", functools.partial(read, names=names))


DATASETS = (
    _dataset("wikipedia", "Wikipedia as WikiExtractor --json writes it, or as JSON lines",
             ("wiki_[0-9]*", *_LINES)),
    _dataset("c4", "C4, as c4-train.00000-of-01024.json.gz and its like", ("c4-*.json*",)),
    _dataset("json_lines", "Text of one's own, JSON lines with a text each", _LINES),
)
