"""Files that evaluation servers score: GLUE's tables, captions of COCO and NoCaps, and their zips.

    python -m mplug2_jax.metrics.submissions glue.zip runs/*/*.tsv --fill WNLI AX
    python -m mplug2_jax.metrics.submissions results.zip runs/coco_server/captions_*_results.json

`eval.py` writes the files (VQAv2's is one of JSON, as `metrics.vqa` writes it, and NoCaps' too: no
zip). GLUE's server takes all eleven at once or none, so those that nothing was trained for can be
filled with one answer, as BERT's authors did with WNLI (arXiv:1810.04805, section 4.1). COCO's
takes the captions of `val2014` and `test2014` together.
"""

import argparse
import csv
import io
import json
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mplug2_jax.contracts.paths import parse

_BINARY, _SAME = ("0", "1"), ("entailment", "not_entailment")
_INFERENCE = ("entailment", "neutral", "contradiction")
_COCO = re.compile(r"captions_(val2014|test2014)_(\w[\w.-]*)_results\.json")


class GlueSet(NamedTuple):
    """A file of GLUE.

    Attributes:
      rows: of the published test set.
      labels: what a prediction may be; () for a number from 0 to 5.
    """

    rows: int
    labels: tuple[str, ...]


GLUE = {
    "CoLA.tsv": GlueSet(1_063, _BINARY), "SST-2.tsv": GlueSet(1_821, _BINARY),
    "MRPC.tsv": GlueSet(1_725, _BINARY), "STS-B.tsv": GlueSet(1_379, ()),
    "QQP.tsv": GlueSet(390_965, _BINARY), "MNLI-m.tsv": GlueSet(9_796, _INFERENCE),
    "MNLI-mm.tsv": GlueSet(9_847, _INFERENCE), "QNLI.tsv": GlueSet(5_463, _SAME),
    "RTE.tsv": GlueSet(3_000, _SAME), "WNLI.tsv": GlueSet(146, _BINARY),
    "AX.tsv": GlueSet(1_104, _INFERENCE),
}


def numbers_of(ids: Sequence[str]) -> list[int] | None:
    """Ids as whole numbers, each once; None where they are not, or where there are none."""
    numbers = [int(one) for one in ids if str(one).isdecimal()]
    return numbers if numbers and len(set(numbers)) == len(ids) else None


def filling(predictions: Sequence[str | float]) -> str | float:
    """What stands for an example that could not be used: the most frequent prediction.

    Of equally frequent ones the first in the alphabet; of numbers the median.
    """
    numbers = [said for said in predictions if isinstance(said, float)]
    if numbers:
        return float(np.median(numbers))
    counts = Counter(predictions)
    return min(counts, key=lambda said: (-counts[said], str(said)))


def write_captions(path: str | Path, image_ids: Sequence[int], captions: Sequence[str]) -> None:
    """Writes `[{"image_id": int, "caption": str}, ...]`, as COCO's and NoCaps' servers expect."""
    rows = [{"image_id": number, "caption": caption}
            for number, caption in zip(image_ids, captions, strict=True)]
    parse(path).write_text(json.dumps(rows, ensure_ascii=False) + "\n", "utf-8")


def write_glue(path: str | Path, numbers: Sequence[int], predictions: Sequence[str | float],
               classes: Sequence[str]) -> None:
    """Writes a table of `index` and `prediction` in the order of the test file.

    Args:
      path: named as in `GLUE`, which says whether labels are words or numbers.
      numbers: the rows of the test file, from 0.
      predictions: classes, or scores.
      classes: in the order of their numbers.

    Raises:
      ValueError: a row is missing or comes twice, or the set has no such label.
    """
    name = Path(path).name
    labels = GLUE[name].labels
    said = dict(zip(numbers, predictions, strict=True))
    if sorted(numbers) != list(range(len(numbers))):
        first = next(row for row in range(len(numbers)) if list(numbers).count(row) != 1)
        raise ValueError(f"{name}: row {first} is missing or comes twice; expected each row of the "
                         "test file once")
    rows = []
    for number in range(len(numbers)):
        words = str(said[number])
        if not labels:
            words = f"{min(max(float(said[number]), 0.0), 5.0):.3f}"
        elif labels == _BINARY and words in classes:
            words = str(list(classes).index(words))
        if labels and words not in labels:
            raise ValueError(f"{name}: {words!r} is no label; expected one of {', '.join(labels)}")
        rows.append((number, words))
    parse(path).write_text(_table(rows), "utf-8")


def pack(out: str | Path, files: Sequence[str | Path], fill: Sequence[str] = (),
         any_size: bool = False) -> list[str]:
    """Zips the files of one submission, flat; returns their names.

    Args:
      out: the zip.
      files: GLUE's or COCO's.
      fill: GLUE's sets that get the same answer everywhere.
      any_size: GLUE's files may have other numbers of rows than published, for a trial.

    Raises:
      ValueError: a file is missing, too much, or not as its server wants it.
    """
    paths = {Path(file).name: Path(file) for file in files}
    if len(paths) < len(files):
        raise ValueError("two files have the same name; a zip for a server is flat")
    if set(paths) & set(GLUE) or fill:
        contents = _glue(paths, [f"{name.removesuffix('.tsv')}.tsv" for name in fill], any_size)
    else:
        contents = _coco(paths)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(contents.items()):
            archive.writestr(name, text)
    return sorted(contents)


def _glue(paths: dict[str, Path], fill: list[str], any_size: bool) -> dict[str, str]:
    given = [*paths, *fill]
    wrong = [name for name in given if name not in GLUE or given.count(name) > 1]
    if wrong:
        raise ValueError(f"{wrong[0]}: expected each of {', '.join(GLUE)} once, given or filled")
    missing = [name for name in GLUE if name not in given]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: GLUE's server takes all {len(GLUE)} "
                         "files; --fill gives one answer to a set that was not evaluated")
    contents = {}
    for name, (rows, labels) in GLUE.items():
        if name in fill:
            answer = "2.500" if not labels else labels[0]
            contents[name] = _table([(row, answer) for row in range(rows)])
            continue
        contents[name] = paths[name].read_text("utf-8")
        table = list(csv.reader(io.StringIO(contents[name]), delimiter="\t"))
        if table[:1] != [["index", "prediction"]] or [row[0] for row in table[1:]] != [
                str(row) for row in range(len(table) - 1)]:
            raise ValueError(f"{paths[name]}: expected a line of index and prediction, then every "
                             "row from 0 on")
        if len(table) - 1 != rows and not any_size:
            raise ValueError(f"{paths[name]}: {len(table) - 1} rows, and the test set has {rows}")
    return contents


def _coco(paths: dict[str, Path]) -> dict[str, str]:
    parts = {name: _COCO.fullmatch(name) for name in paths}
    found = {match.groups() for match in parts.values() if match}
    if None in parts.values() or {split for split, _ in found} != {"val2014", "test2014"} or len(
            {algorithm for _, algorithm in found}) != 1 or len(paths) != 2:
        raise ValueError(f"{', '.join(paths)}: expected the files of GLUE, or of COCO "
                         "captions_val2014_NAME_results.json and captions_test2014_NAME_"
                         "results.json of one NAME")
    return {name: path.read_text("utf-8") for name, path in paths.items()}


def _table(rows: Sequence[tuple[int, str]]) -> str:
    return "".join(f"{index}\t{said}\n" for index, said in (("index", "prediction"), *rows))


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the zip to write")
    parser.add_argument("files", nargs="*", help="what eval.py wrote for the server")
    parser.add_argument("--fill", nargs="*", default=[], metavar="SET",
                        help="GLUE's sets that get one answer everywhere, such as WNLI")
    parser.add_argument("--any_size", action="store_true",
                        help="files may have other sizes than published, for a trial")
    given = parser.parse_args(argv)
    try:
        names = pack(given.out, given.files, given.fill, given.any_size)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.out}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
