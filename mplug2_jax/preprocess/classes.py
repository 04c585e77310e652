"""The classes of a task: names whose place in the list is the label."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mplug2_jax.config import ConfigError

SCORE = "score"  # in place of names: the label is itself a number, such as a degree of similarity


def class_names(classes: str | Sequence[str]) -> tuple[str, ...]:
    """The names that a config's `classes` stands for, in the order of their numbers.

    Args:
      classes: the names themselves, the path of a file with a name a line, or `SCORE`, which has
        none.

    Raises:
      ConfigError: there is no such file, fewer than two names, or one of them twice.
    """
    return () if classes == SCORE else read_names("classes", classes, f", nor is it {SCORE!r}")


def read_names(key: str, names: str | Sequence[str], unless: str = "",
               form: Callable[[str], str] = str) -> tuple[str, ...]:
    """Names of a config, or of the file that it names: one a line, empty lines left out.

    Args:
      key: of the config, for messages.
      names: the names or the path.
      unless: what else it might have been, for the message of a file that cannot be read.
      form: two names that this makes equal are the same.

    Raises:
      ConfigError: there is no such file, fewer than two names, or one of them twice; then the
        message has both lines.
    """
    where, placed = "name", list(enumerate(names, 1))
    if isinstance(names, str):
        try:
            lines = Path(names).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key} = {names!r}: cannot be read as a file of names, one a "
                              f"line{unless}: {error}") from None
        where = "line"
        placed = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if len(placed) < 2:
        raise ConfigError(f"{key} = {names!r}: expected at least two names")
    seen: dict[str, int] = {}
    for number, name in placed:
        first = seen.setdefault(form(name), number)
        if first != number:
            raise ConfigError(f"{key} = {names!r}: {where} {number}, {name!r}, is that of {where} "
                              f"{first} again: remove one of them")
    return tuple(name for _, name in placed)


def count_outputs(classes: str | Sequence[str]) -> int:
    """How many numbers a head gives for these classes: one each, and one for `SCORE`."""
    return len(class_names(classes)) or 1
