"""What the data is, as short hashes: with them hosts see that they read the same."""

import hashlib
from pathlib import Path
from typing import Any

from data.written import find_version
from data.written.folders import indexes
from data.written.split import open_index
from mplug2_jax.preprocess.tokenizer import vocabulary_file


def fingerprint(data: Any) -> dict[str, str]:
    """Hashes of the tokenizer and of each written dataset that a config's streams read.

    A dataset's covers its description and its files' names and sizes, not their contents: they may
    be terabytes, and each record has a checksum. The indexes beside them have a digest of all that
    was written, media included.

    Raises:
      DataError: a dataset is not there, or an index is damaged.
      OSError: the tokenizer is not there.
    """
    roots: set[str] = set()
    for stream in data.streams.values():
        own = stream.get("root", "") or str(data.root)
        roots |= ({own} if isinstance(stream.split, str) else
                  {source.get("root", "") or own for source in stream.split.values()})
    return {"tokenizer": _hash(vocabulary_file(data.tokenizer).read_bytes())} | {
        root: _dataset(find_version(Path(root))) for root in sorted(roots)}


def _dataset(folder: Path) -> str:
    texts = [path.read_text() for path in sorted(folder.glob("*.json"))]
    files = sorted((path.name, path.stat().st_size) for path in folder.glob("*.array_record*"))
    digests = [(path.name, open_index(path, folder).meta["digest"]) for path in indexes(folder)]
    return _hash(repr((texts, files, digests)).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
