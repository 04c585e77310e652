"""Records of an evaluation to look into: in order of a score, a few of them, and in a file.

A record is a dict: `index`, `unit` (what it is drawn with for intervals), what the model said, what
was right, and under "scores" the example's own value of each score (`metrics.scores.keep`). `by`
names one of those; with a "-" in front smaller is better, as for ranks.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mplug2_jax.contracts import paths

Record = dict[str, Any]


def units_of(records: Sequence[Mapping[str, Any]]) -> list[Hashable]:
    """The unit of each record: of what was drawn together for the test, mostly its medium."""
    return [record.get("unit", record.get("index", number))
            for number, record in enumerate(records)]


def best_first(records: Sequence[Record], by: str, worst: bool = False) -> list[Record]:
    """The records by score, the best first or the worst.

    Equal ones stay in the order given; those without the score come last.
    """
    name, sign = by.removeprefix("-"), 1 if by.startswith("-") != worst else -1

    def key(record: Record) -> tuple[bool, float]:
        value = record.get("scores", {}).get(name)
        return value is None, 0.0 if value is None else sign * value

    return sorted(records, key=key)


def choose(records: Sequence[Record], by: str, count: int, seed: int = 0,
           ) -> dict[str, list[Record]]:
    """`{"best", "worst", "random"}`: about a third of `count` records each, none twice.

    Which of equal scores are taken is drawn, fixed by `seed`: half of all answers may be right.
    Without the score all are random.
    """
    order = np.random.default_rng(seed).permutation(len(records))
    shuffled = [records[i] for i in order]
    ranked = best_first([r for r in shuffled if by.removeprefix("-") in r.get("scores", {})], by)
    share = min(count // 3, len(ranked) // 2)
    best, worst = ranked[:share], ranked[len(ranked) - share:][::-1]
    taken = {id(record) for record in best + worst}
    rest = [record for record in shuffled if id(record) not in taken]
    chosen = {"best": best, "worst": worst, "random": rest[:count - 2 * share]}
    return {name: some for name, some in chosen.items() if some}


def write_records(path: str | Path, records: Sequence[Record]) -> None:
    """One JSON object a line, in the order given; NumPy values as numbers and lists.

    The file replaces an old one in one step.

    Raises:
      ValueError: a number that is not finite, or a value that JSON cannot hold, naming the record.
    """
    path = paths.parse(path)
    with paths.whole(path) as part, part.open("w", encoding="utf-8") as file:
        for number, record in enumerate(records):
            try:
                line = json.dumps(record, default=_plain, allow_nan=False, ensure_ascii=False)
            except (TypeError, ValueError) as error:
                raise ValueError(f"record {record.get('index', number)}: {error}") from error
            file.write(line + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
