"""The classes of a task: names whose place in the list is the label."""

from collections import Counter
from collections.abc import Sequence
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
    if classes == SCORE:
        return ()
    if isinstance(classes, str):
        try:
            lines = Path(classes).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"classes = {classes!r}: cannot be read as a file of names, one a "
                              f"line, nor is it {SCORE!r}: {error}") from None
        names = tuple(line.strip() for line in lines if line.strip())
    else:
        names = tuple(classes)
    if len(names) < 2:
        raise ConfigError(f"classes = {classes!r}: expected at least two names")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"classes = {classes!r}: {name!r} stands there {count} times")
    return names


def count_outputs(classes: str | Sequence[str]) -> int:
    """How many numbers a head gives for these classes: one each, and one for `SCORE`."""
    return len(class_names(classes)) or 1
