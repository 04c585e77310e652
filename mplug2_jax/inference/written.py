"""What a job writes: lines of JSON that become one file, or tables of embeddings, a file a part."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError

Line = dict[str, Any]  # of `Predictor.line`


class Written(Protocol):
    """How the parts of a job are written.

    Attributes:
      folder: in which they lie, with the plan.
      lock: folder and name of what one command at a time writes.
    """

    folder: Path
    lock: tuple[Path, str]

    def part(self, number: int, parts: int) -> Path:
        """The file of a part, of so many."""

    def write(self, path: Path, lines: Sequence[Line]) -> None:
        """Writes a part, as a whole."""

    def finish(self, parts: int) -> int:
        """Makes what the user asked for of all parts; how many files could not be read."""


class Lines:
    """A line of JSON a file; in the end all of them in one file, in the order of the files.

    Args:
      out: that file. The parts lie beside it until then.
    """

    def __init__(self, out: Path):
        self.out, self.folder = out, out.with_name(f"{out.name}.parts")
        self.lock = out.parent, out.name

    def part(self, number: int, parts: int) -> Path:
        return self.folder / f"{number:05d}-of-{parts:05d}.jsonl"

    def write(self, path: Path, lines: Sequence[Line]) -> None:
        paths.write(path, "".join(said(line) + "\n" for line in lines))

    def finish(self, parts: int) -> int:
        failed = 0

        def contents() -> Iterator[bytes]:
            nonlocal failed
            for number in range(parts):
                content = self.part(number, parts).read_bytes()
                failed += sum("error" in json.loads(line) for line in content.splitlines())
                yield content

        paths.stream(self.out, contents())
        paths.remove_tree(self.folder)
        return failed


class Tables:
    """Embeddings in Parquet, a row a file: `file`, `embedding` (float32 `[C]`) and `error`.

    Args:
      folder: in which they lie; with the plan, which says what they are of.

    Raises:
      ConfigError: PyArrow is not installed.
    """

    def __init__(self, folder: Path):
        _arrow()  # before anything is computed
        self.folder, self.lock = folder, (folder, "job")

    def part(self, number: int, parts: int) -> Path:
        return self.folder / f"embeddings-{number:05d}-of-{parts:05d}.parquet"

    def write(self, path: Path, lines: Sequence[Line]) -> None:
        arrow, parquet = _arrow()
        found = [line.get("embedding") for line in lines]
        width = next((len(one) for one in found if one is not None), 0)
        # Names of files may be no text: what is no UTF-8 in them is written as Python says it.
        names = [line["file"].encode("utf-8", "backslashreplace").decode() for line in lines]
        table = arrow.table({
            "file": arrow.array(names, arrow.string()),
            "embedding": arrow.array(found, arrow.list_(arrow.float32(), width or -1)),
            "error": arrow.array([line.get("error") for line in lines], arrow.string())})
        content = io.BytesIO()
        parquet.write_table(table, content)
        paths.write(path, content.getvalue())

    def finish(self, parts: int) -> int:
        _, parquet = _arrow()
        return sum(self._failed(parquet, self.part(number, parts)) for number in range(parts))

    @staticmethod
    def _failed(parquet: Any, path: Path) -> int:
        column = parquet.read_table(io.BytesIO(path.read_bytes()), columns=["error"])["error"]
        return len(column) - column.null_count


def said(line: Line) -> str:
    """A line as JSON; an embedding as a list."""
    return json.dumps(line, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("embeddings in files need PyArrow: pip install pyarrow") from error
    return pyarrow, pyarrow.parquet
