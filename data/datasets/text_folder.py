"""Plain text of one's own: a document or a sentence a line."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder
from data.datasets.split_names import SPLITS
from data.datasets.texts import lines
from mplug2_jax.contracts.errors import DataError

# A document of more words becomes several records, so that little is cut off: about 128 pieces.
PASSAGE_WORDS = 96


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """`SPLIT/**.txt`, or `*.txt` alone for a split `train`; empty lines are left out.

    Folders of splits have any of the names of `split_names`; those of one split are joined.

    A record is a line, or `PASSAGE_WORDS` words of it; its id is the file, the line's number and
    the word's, from 1 on.
    """
    found: dict[str, list[str]] = {split: [] for split in SPLITS.values()}
    for top in raw.tree.inner(""):
        if split := SPLITS.get(top.casefold()):
            found[split] += [os.path.join(folder, name) for folder, names in raw.tree.walk(top)
                             for name in names if _is_text(name)]
    if not any(found.values()):
        found = {"train": [name for name in sorted(raw.tree.listing("").files) if _is_text(name)]}
    if not any(found.values()):
        raise DataError(f"--raw={raw.root} has no text: expected train/*.txt or *.txt")
    return {split: _entries(raw.root, sorted(files)) for split, files in found.items() if files}


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt") and not name.startswith(".")


def passages(name: str, text: str) -> Iterator[Entry]:
    """The records of a document: `PASSAGE_WORDS` words each, their ids `name:WORD` from 1 on."""
    words = text.split()
    for start in range(0, len(words), PASSAGE_WORDS):
        passage = " ".join(words[start : start + PASSAGE_WORDS])
        yield Entry(f"{name}:{start + 1}", "text", [], {"texts": [passage]})


def _entries(root: Path, files: list[str]) -> Iterator[Entry]:
    for name in files:
        for number, line in enumerate(lines(root / name), 1):
            yield from passages(f"{name}:{number}", line)


DATASETS = (Dataset("text_folder", "Plain text, a document or a sentence a line", "text", read),)
