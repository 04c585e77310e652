"""An evaluation's file for a server, with an answer for each example of the split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mplug2_jax.metrics.submissions import filling
from mplug2_jax.tasks import Task


class Listing(Protocol):
    """A split, whose examples are known without being used."""

    def examples(self) -> Sequence[tuple[int, int]]:
        """(record, item) of every example, in order."""

    def annotation(self, index: int) -> dict[str, Any]:
        """The texts and questions of a record."""


class Submission(NamedTuple):
    """What became of a file.

    Attributes:
      total: its examples; 0 where it was not written.
      reason: why it was not.
      filled: the ids of examples that could not be used.
      answer: what stands for these.
    """

    total: int
    reason: str = ""
    filled: tuple[str, ...] = ()
    answer: str | float = ""

    def facts(self) -> dict[str, Any]:
        """What was filled, for a report."""
        return {"with": self.answer, "of": self.total, "ids": list(self.filled)}


def submit(task: Task, path: Path, records: Sequence[Mapping[str, Any]], split: Listing,
           skipped: bool) -> Submission:
    """Writes the file, in the order of the split.

    A server refuses a file that lacks an example, so those that could not be used have the most
    frequent prediction of the others. There is no file where the ids are not the server's, or an
    example's is unknown since its record cannot be read.

    Args:
      task: that gave the records.
      path: of the file, which says its format.
      records: of the examples that could be used.
      split: what they are of.
      skipped: whether there are others.
    """
    filled: list[dict[str, Any]] = []
    try:
        if skipped:
            filled = unused(task, records, split)
        complete = sorted([*records, *filled], key=lambda one: (one["index"], one["item"]))
        if not task.write_submission(path, [dict(record) for record in complete]):
            return Submission(0, "the records have no numbers of their own as ids")
    except ValueError as error:  # an unreadable record, or what the server would refuse
        return Submission(0, str(error))
    return Submission(len(complete), filled=tuple(str(record["id"]) for record in filled),
                      answer=filled[0]["prediction"] if filled else "")


def unused(task: Task, records: Sequence[Mapping[str, Any]],
           split: Listing) -> list[dict[str, Any]]:
    """Records of the split's other examples: their id, and the most frequent prediction.

    Raises:
      RecordError: what is said of one cannot be read.
    """
    there = {(record["index"], record["item"]) for record in records}
    said = filling([record["prediction"] for record in records])
    return [{"index": index, "item": item, "prediction": said,
             "id": task.example_id(split.annotation(index), item)}
            for index, item in split.examples() if (index, item) not in there]
