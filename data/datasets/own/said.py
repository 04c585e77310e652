"""What one row of a table says: texts, questions, a class, boxes, of which part of a medium."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data.datasets.own import values
from data.datasets.own.arrow_files import Cell
from data.datasets.own.columns import value

Roles = Mapping[str, tuple[str, ...]]  # by role the columns that a table has
Box = tuple[tuple[float, ...], str]  # four numbers, and the format that their names tell


@dataclass
class Said:
    """What a row says, in words and numbers.

    Attributes:
        place: of the row.
        media: what stands for its medium: a name, a cell, a list of names.
        split: as it is called in the table, "" where no column says.
        start, end: seconds, None for nothing.
        texts: captions.
        questions: each with its answers, and the id of the question.
        label: the class.
        boxes: each with its phrase.
        size: width and height that the table has.
    """

    place: str
    media: Any
    split: str = ""
    start: float | None = None
    end: float | None = None
    texts: list[str] = field(default_factory=list)
    questions: list[tuple[str, list[str], str]] = field(default_factory=list)
    label: str = ""
    boxes: list[tuple[str, Box]] = field(default_factory=list)
    size: tuple[float, float] | None = None


def read(place: str, row: Mapping[str, Any], roles: Roles) -> Said:
    """What a row says.

    Raises:
        ValueError: a cell holds what its column cannot, or the row says nothing.
    """
    def cell(role: str) -> Any:
        return value(row, roles[role][0]) if role in roles else None

    said = Said(place, _media(cell("media")))
    for role in ("start", "end"):
        setattr(said, role, _named(role, values.seconds, cell(role)))
    if said.end is not None and said.end <= (said.start or 0.0):
        raise ValueError(f"its end {said.end:g} is not after its start {said.start or 0:g}")
    if "split" in roles:
        said.split = _named("split", values.word, cell("split"))
        if not said.split:
            raise ValueError(f"its split is empty (column {roles['split'][0]!r})")
    said.texts = _named("caption", values.words, cell("caption"))
    said.label = "" if _names_boxes("label", roles) else _named("label", values.word, cell("label"))
    if "question" in roles:
        said.questions = _named("question", lambda one: _questions(one, cell("answer"), cell(
            "question_id")), cell("question"))
    if "box" in roles:
        said.boxes = _named("box", lambda one: _boxes(one, row, roles), roles["box"])
    sides = [_named(role, values.number, cell(role)) for role in ("width", "height")]
    if all(sides):
        said.size = sides[0], sides[1]
    if not (said.texts or said.questions or said.label or said.boxes):
        names = ", ".join(repr(roles[role][0]) for role in (
            "caption", "question", "label", "box") if role in roles)
        raise ValueError(f"it says nothing: {names} is empty")
    return said


def _named(role: str, read, found: Any) -> Any:
    """What `read` makes of a cell; its ValueError with the role in front."""
    try:
        return read(found)
    except ValueError as error:
        raise ValueError(f"{role}: {error}") from None


def _media(found: Any) -> Any:
    """A name, a cell of the table, or a list of names.

    Raises:
        ValueError: it is nothing of it.
    """
    if isinstance(found, Mapping):  # as JSON has what `datasets` holds
        name, data = found.get("path"), found.get("bytes")
        found = f"data:;base64,{data}" if isinstance(data, str) and data else name
    if isinstance(found, str):
        found = values.listed(found)
    if isinstance(found, list) and len(found) == 1:
        return _media(found[0])
    if isinstance(found, Cell):
        return found
    if isinstance(found, list) and found:
        several = [_media(one) for one in found]
        if any(isinstance(one, list) for one in several):
            raise ValueError("media: a list in a list")
        return several
    name = _named("media", values.word, found)
    if not name:
        raise ValueError("it names no medium")
    return name


def _questions(asked: Any, answered: Any, number: Any) -> list[tuple[str, list[str], str]]:
    """The questions of a row, each with the answers that it has, and their id where it is one."""
    questions = values.words(asked)
    if len(questions) < 2:
        return [(one, values.words(answered), values.word(number)) for one in questions]
    answers = values.listed(answered) if isinstance(answered, str) else answered
    if not isinstance(answers, list | tuple) or len(answers) != len(questions):
        count = len(answers) if isinstance(answers, list | tuple) else 1
        raise ValueError(f"{len(questions)} questions with {count} answers")
    return [(one, values.words(own), "")
            for one, own in zip(questions, answers, strict=True)]


def _boxes(columns: tuple[str, ...], row: Mapping[str, Any],
           roles: Roles) -> list[tuple[str, Box]]:
    """The boxes of a row, each with the phrase of what it is around."""
    if all(values.null(value(row, name)) for name in columns):
        return []  # a row that says something else may have none
    if len(columns) == 4:
        sides = {name: value(row, name) for name in columns}
        try:
            found = values.boxes(sides)
        except ValueError:  # names that tell no format
            found = values.boxes(list(sides.values()))
    else:
        found = values.boxes(value(row, columns[0]))
    if not found:
        return []
    role = next(role for role in ("phrase", "caption", "label") if role in roles)
    phrases = values.words(value(row, roles[role][0]))
    if len(found) == 1:
        found = found * max(len(phrases), 1)
    if len(found) != len(phrases):
        raise ValueError(f"{len(found)} boxes with {len(phrases)} phrases "
                         f"(column {roles[role][0]!r})")
    return list(zip(phrases, found, strict=True))


def _names_boxes(role: str, roles: Roles) -> bool:
    """Whether a column says what boxes are around, and nothing of the whole."""
    return "box" in roles and role == "label" and not {"phrase", "caption"} & roles.keys()
