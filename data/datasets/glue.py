"""GLUE from its original files: sentences and pairs, with their classes or a degree of likeness."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, read_rows
from mplug2_jax.contracts.errors import DataError

_SPLITS = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}


@dataclass(frozen=True)
class _Task:
    """Where a task's files have what.

    Attributes:
        folder: with the files.
        title: of the task.
        texts: columns of the sentences.
        label: column of the class.
        classes: by number, where the files have numbers; () where they have words or scores.
        files: {split: file}.
        sizes: published, {split: records}.
        header: whether the files that have labels begin with a line of column names; without it,
            columns are numbers. Test files always do, and name their sentences so.
        gaps: whether rows that are too short are left out; the published file has some.
    """

    folder: str
    title: str
    texts: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    sizes: tuple[int, ...]
    files: tuple[tuple[str, str], ...] = tuple(_SPLITS.items())
    header: bool = True
    gaps: bool = False


# Class names are those of TFDS, so that both ways to the data give the same labels.
_TASKS = {
    "cola": _Task("CoLA", "CoLA: is a sentence acceptable", ("sentence",), "1",
                  ("unacceptable", "acceptable"), (8551, 1043, 1063), header=False),
    "sst2": _Task("SST-2", "SST-2: is a review positive", ("sentence",), "label",
                  ("negative", "positive"), (67349, 872, 1821)),
    "mrpc": _Task("MRPC", "MRPC: do two sentences mean the same", ("#1 String", "#2 String"),
                  "Quality", ("not_equivalent", "equivalent"), (3668, 408, 1725)),
    "stsb": _Task("STS-B", "STS-B: how alike two sentences are, 0 to 5",
                  ("sentence1", "sentence2"), "score", (), (5749, 1500, 1379)),
    "qqp": _Task("QQP", "QQP: do two questions ask the same", ("question1", "question2"),
                 "is_duplicate", ("not_duplicate", "duplicate"), (363849, 40430, 390965),
                 gaps=True),
    "mnli": _Task("MNLI", "MNLI: does one sentence follow from another",
                  ("sentence1", "sentence2"), "gold_label", (), (392702, 9815, 9832, 9796, 9847),
                  files=(("train", "train.tsv"), ("validation_matched", "dev_matched.tsv"),
                         ("validation_mismatched", "dev_mismatched.tsv"),
                         ("test_matched", "test_matched.tsv"),
                         ("test_mismatched", "test_mismatched.tsv"))),
    "qnli": _Task("QNLI", "QNLI: does a sentence answer a question", ("question", "sentence"),
                  "label", (), (104743, 5463, 5463)),
    "rte": _Task("RTE", "RTE: does one sentence follow from another", ("sentence1", "sentence2"),
                 "label", (), (2490, 277, 3000)),
}


def read(raw: RawFolder, task: _Task) -> dict[str, Iterable[Entry]]:
    """One record a row, its id the row's number (from 0), which a submission states as well."""
    names = {split: (f"{task.folder}/{file}", file) for split, file in task.files}
    return {split: _entries(path, split, task) for split, path in raw.some(names).items()}


def _entries(path: Path, split: str, task: _Task) -> Iterator[Entry]:
    hidden = split.startswith("test")
    for number, row in enumerate(_rows(path, task, hidden)):
        fields = {"texts": [row[name] for name in task.texts]}
        if not hidden:
            fields["label"] = _label(path, row[task.label], task.classes)
        yield Entry(str(number), "text", [], fields)


def _rows(path: Path, task: _Task, hidden: bool) -> Iterator[dict[str, str]]:
    """The rows as {column: cell}; a file without a header has the columns "0", "1", ..."""
    rows = read_rows(path, 1)
    wanted = (*task.texts, *(() if hidden else (task.label,)))
    if hidden or task.header:
        names = [name.strip("\ufeff") for name in next(rows, [])]
    else:
        names = ["0", "1", "2", *task.texts]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}: is it of {task.folder}?")
    places = {name: names.index(name) for name in wanted}
    width = max(places.values()) + 1
    for number, row in enumerate(rows, 1):
        if len(row) >= width:
            yield {name: row[place] for name, place in places.items()}
        elif hidden or not task.gaps:  # a submission counts the rows
            raise DataError(f"{path}, row {number} has {len(row)} columns between tabs, "
                            f"not {width}")


def _label(path: Path, cell: str, classes: tuple[str, ...]) -> str:
    if not classes:
        return cell
    if cell not in map(str, range(len(classes))):
        raise DataError(f"{path}: {cell!r} is no label, expected 0 to {len(classes) - 1}")
    return classes[int(cell)]


DATASETS = tuple(
    Dataset(
        f"glue_{name}",
        task.title,
        "text",
        functools.partial(read, task=task),
        {split: {"records": size} for (split, _), size in zip(task.files, task.sizes, strict=True)},
    )
    for name, task in _TASKS.items()
)
