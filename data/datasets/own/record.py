"""A record as tables make it, of all rows that speak of one medium."""

from dataclasses import dataclass, field
from typing import Any

from data.datasets.own.said import Said
from data.datasets.raw import Entry


@dataclass
class Record:
    """A medium, or a part of one, and what the rows of it say.

    Attributes:
        members: what tells each of its whole media from others: a name, or the digest of its bytes.
        entry: what is said of it.
    """

    members: tuple[str, ...]
    entry: Entry
    seen: set = field(default_factory=set)

    def add(self, one: Said, boxes: list[dict]) -> bool:
        """Adds what a row says; whether any of it is new.

        Raises:
            ValueError: the medium has another class.
        """
        fields = self.entry.fields
        if one.label and fields.get("label", one.label) != one.label:
            raise ValueError(f"class {one.label!r}, where {self.entry.id} is {fields['label']!r}")
        before = len(self.seen)
        if one.label:
            fields["label"] = one.label
            self.seen.add(one.label)
        for text in one.texts:
            self._put("texts", text, text)
        for question, answers, number in one.questions:
            made: dict[str, Any] = {
                "question": question, "answer": max(answers, key=answers.count, default="")}
            if len(answers) > 1:
                made["answers"] = answers
            self._put("questions", (question, tuple(answers), number),
                      made | ({"id": number} if number else {}))
        for box in boxes:
            self._put("boxes", (box["phrase"], tuple(box["box"])), box)
        return len(self.seen) > before

    def _put(self, name: str, key: Any, value: Any) -> None:
        if (name, key) not in self.seen:
            self.seen.add((name, key))
            self.entry.fields.setdefault(name, []).append(value)
