"""The classes of a task, and the prompts that describe them: lists, or files of a line each."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import SCORE

_SYNSET = re.compile(r"(n\d{8})\s+([^,]*[^,\s]).*")


def read_lines(key: str, given: str | Sequence[str], also: str = "") -> tuple[str, ...]:
    """The texts that a config's key stands for: themselves, or the lines of the file it names.

    Args:
      key: for the message.
      given: texts, or a path.
      also: what else the key could have been, for the message.

    Raises:
      ConfigError: there is no such file.
    """
    if not isinstance(given, str):
        return tuple(given)
    try:
        lines = paths.parse(given).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key} = {given!r}: cannot be read as a file of one a line{also}: "
                          f"{error}") from None
    return tuple(line.strip() for line in lines if line.strip())


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
            lines = paths.parse(names).read_text(encoding="utf-8").splitlines()
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


def in_order(names: Sequence[str], lines: Sequence[str]) -> tuple[str, ...]:
    """Lines in the order of the classes, where each begins with WordNet's number of its class.

    So ImageNet's `LOC_synset_mapping.txt` does: "n01440764 tench, Tinca tinca". Of synonyms the
    first. Other lines are in that order already.

    Raises:
      ConfigError: there is none for a class.
    """
    parts = [_SYNSET.fullmatch(line) for line in lines]
    if not lines or None in parts:
        return tuple(lines)
    found = {part[1]: part[2] for part in parts if part}
    for name in names:
        if name not in found:
            raise ConfigError(f"task.wordings: no line begins with the class {name!r}")
    return tuple(found[name] for name in names)


def class_prompts(classes: str | Sequence[str], wordings: str | Sequence[str],
                  templates: str | Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Every template with every wording of every class.

    Args:
      classes: as of `class_names`.
      wordings: for each class what a prompt calls it, several of them with "|" between; or a file
        of a line a class, or of `in_order`; none for the names themselves.
      templates: each with "{}" where the class stands, or a file of them.

    Returns:
      The prompts, and int64 `[prompts]`, the class of each.

    Raises:
      ConfigError: no classes or templates, another number of wordings than of classes, or a
        template without "{}".
    """
    names, filled = class_names(classes), read_lines("task.templates", templates)
    if not names:
        raise ConfigError(f"task.classes = {classes!r}: prompts need the names of classes")
    said = in_order(names, read_lines("task.wordings", wordings)) or names
    if len(said) != len(names):
        raise ConfigError(f"task.wordings: {len(said)} for {len(names)} classes; give one for each")
    if not filled:
        raise ConfigError('task.templates: empty; give prompts such as "a photo of a {}"')
    for template in filled:
        if "{}" not in template:
            raise ConfigError(f'task.templates: {template!r} has no "{{}}" for the class')
    prompts, owners = [], []
    for number, line in enumerate(said):
        for words in (line.split("|") if wordings else (line,)):
            prompts += [template.replace("{}", words.strip()) for template in filled]
            owners += [number] * len(filled)
    return prompts, np.array(owners)
