"""What is done of several evaluations, kept until their report is written: killed, they go on.

    <out>/report.partial/facts.json    all that they depend on
    <out>/report.partial/NAME.jsonl    the records of an evaluation
    <out>/report.partial/NAME.json     its figures; written last
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from mplug2_jax.contracts import paths
from mplug2_jax.evaluation.records import write_records

FOLDER, _FACTS = "report.partial", "facts.json"


class Speed(NamedTuple):
    """How fast an evaluation was, compilation among it; of all processes together."""

    examples: int
    seconds: float

    @property
    def rate(self) -> float:
        """Examples a second."""
        return self.examples / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        return f"{self.examples:,} examples in {self.seconds:.1f} s, {self.rate:,.1f} examples/s"


class Done(NamedTuple):
    """What an evaluation gave: figures, records, figures of untrained parameters, its speed."""

    scores: dict[str, float]
    records: list[dict[str, Any]]
    untrained: dict[str, float]
    speed: Speed


class Journal:
    """The evaluations that are done; for the first process alone.

    Args:
      folder: of the report.
      facts: all that the evaluations depend on, plain values: what was kept of others is removed.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]):
        self._folder = folder / FOLDER
        said, there = json.dumps(facts, sort_keys=True, default=str), self._folder / _FACTS
        if there.exists() and there.read_text() != said:
            logging.info("%s: of another checkpoint, config, code or data: begun anew",
                         self._folder)
            self.remove()
        if not there.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            paths.write(there, said)

    def names(self) -> list[str]:
        """The evaluations that are done."""
        return [path.stem for path in self._folder.glob("*.json") if path.name != _FACTS]

    def write(self, name: str, done: Done) -> None:
        """Keeps what an evaluation gave."""
        write_records(self._folder / f"{name}.jsonl", done.records)
        paths.write(self._folder / f"{name}.json", json.dumps(
            {"scores": done.scores, "untrained": done.untrained, "speed": done.speed},
            default=float))

    def read(self, name: str) -> Done:
        """What an evaluation gave, as it was kept."""
        kept = json.loads((self._folder / f"{name}.json").read_text())
        text = (self._folder / f"{name}.jsonl").read_text(encoding="utf-8")
        records = [json.loads(line) for line in text.split("\n") if line]
        for record in records:
            record["unit"] = _hashable(record["unit"])
        return Done(kept["scores"], records, kept["untrained"], Speed(*kept["speed"]))

    def remove(self) -> None:
        """The report is written."""
        paths.remove_tree(self._folder)


def _hashable(unit: Any) -> Hashable:
    """A unit as it was: what JSON makes a list of was a tuple."""
    return tuple(map(_hashable, unit)) if isinstance(unit, Sequence) and not isinstance(
        unit, str) else unit
