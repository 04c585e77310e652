"""What the data is, as short hashes: with them hosts see that they read the same."""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.written import find_version
from data.written.folders import files_in, indexes
from data.written.split import open_index
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.tokenizer import vocabulary_file


def fingerprint(data: Any, evals: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Hashes of the tokenizer and of each written dataset that a config's streams read.

    So do those of its `evals`, as far as their datasets are there.

    A dataset's covers its description and its files' names and sizes, not their contents: they may
    be terabytes, and each record has a checksum. The indexes beside them have a digest of all that
    was written, media included.

    Raises:
      DataError: a dataset is not there, or an index is damaged.
      OSError: the tokenizer is not there.
    """
    roots: set[str] = set().union(*(_roots(stream, data) for stream in data.streams.values()))
    found = {"tokenizer": _hash(vocabulary_file(data.tokenizer).read_bytes())} | {
        root: _dataset(find_version(paths.parse(root))) for root in sorted(roots)}
    evaluated: set[str] = set().union(*(
        _roots(entry.stream, data) for entry in (evals or {}).values()))
    for root in sorted(evaluated - roots):
        with contextlib.suppress(DataError, OSError):  # what reads it will say so
            found[root] = _dataset(find_version(paths.parse(root)))
    return found


def _roots(stream: Any, data: Any) -> set[str]:
    """The folders that a stream reads."""
    own = stream.get("root", "") or str(data.root)
    return ({own} if isinstance(stream.split, str) else
            {source.get("root", "") or own for source in stream.split.values()})


def _dataset(folder: Path) -> str:
    there = files_in(folder)
    texts = [(folder / name).read_text() for name in sorted(there) if name.endswith(".json")]
    files = sorted((name, size) for name, size in there.items() if ".array_record" in name)
    digests = [(path.name, open_index(path, folder).meta["digest"])
               for path in indexes(folder, there)]
    return _hash(repr((texts, files, digests)).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
