"""Sections of a config as frozen dataclasses: each key with its default, its type and a comment.

A section's class is the only place that says its keys. What reads a section gets an instance of the
class, whose names and types are checked; what writes one (a config file) gets plain values.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from mplug2_jax.contracts.errors import ConfigError

_COMMENT, _OLDER = "comment", "older"
_UNIONS = (types.UnionType, typing.Union)


def option(default: Any, comment: str, older: Any = dataclasses.MISSING) -> Any:
    """A field of a section.

    Args:
      default: of a new config; the class of a section for a section within it.
      comment: what it is, in a line, for `--help_config`.
      older: what runs did before there was this key, where that is not the default: a checkpoint
        whose config lacks it goes on with this value.
    """
    metadata = {_COMMENT: comment} | ({} if older is dataclasses.MISSING else {_OLDER: older})
    if dataclasses.is_dataclass(default) and isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(comment: str) -> Any:
    """A field that every config must give."""
    return dataclasses.field(metadata={_COMMENT: comment})


def younger(cls: type) -> dict[str, Any]:
    """The keys without which runs did otherwise than by their defaults; and these."""
    return {field.name: field.default for field in dataclasses.fields(cls)
            if _OLDER in field.metadata}


def section(values: Any) -> dict[str, Any]:
    """The values of an instance, nested as its sections are."""
    return {field.name: section(value) if dataclasses.is_dataclass(value) else value
            for field in dataclasses.fields(values)
            for value in [getattr(values, field.name)]}


def read(cls: type, given: Mapping[str, Any], place: str, root: str = "") -> Any:
    """An instance of `cls` of a config's section; what is not given has its default.

    Args:
      cls: a dataclass of `option` and `required` fields.
      given: names and values; lists become tuples, and whole numbers floats where those are wanted.
      place: of the section in the config, for messages.
      root: where `place` is that of a section within another, the place of the outermost one.
        Messages of a class itself (`__post_init__`) begin with a word for it, "task.momentum.decay
        = ...", which gives way.

    Raises:
      ConfigError: an unknown, missing or mistyped key, or a value that the class refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in given.items():
        if key not in fields:
            raise ConfigError(f"{place}.{key}: unknown key; known: " + ", ".join(sorted(fields)))
        values[key] = _value(hints[key], value, f"{place}.{key}", root or place)
    for key, field in fields.items():
        if key not in values and field.default is dataclasses.MISSING and (
                field.default_factory is dataclasses.MISSING):
            raise ConfigError(f"{place}.{key}: missing; it must be given")
    try:
        return cls(**values)
    except ConfigError as error:
        _, dot, rest = str(error).partition(".")
        raise ConfigError(f"{root or place}{dot}{rest}" if dot else str(error)) from None


def complete(cls: type, stored: Mapping[str, Any], place: str,
             older: bool = True) -> tuple[dict[str, Any], list[str]]:
    """A section with the keys that it does not name, and a line for each of those.

    Args:
      cls: of the section.
      stored: its keys and values.
      place: of the section in the config.
      older: whether it is a checkpoint's, whose run did without these keys: they get the values
        that reproduce what it did. Else they get their defaults.
    """
    values, filled = dict(stored.items()), []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, inner = f"{place}.{field.name}", hints[field.name]
        missing = field.name not in values
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            given = values.get(field.name, {})
            if isinstance(given, Mapping | _Items):
                values[field.name], more = complete(
                    inner, typing.cast(Mapping[str, Any], given), name, older)
                filled += more
        elif missing and (field.default is not dataclasses.MISSING):
            values[field.name] = (field.metadata.get(_OLDER, field.default) if older
                                  else field.default)
            filled.append(f"{name} = {values[field.name]!r}")
    return values, filled


def comments(cls: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The path of every key below `prefix`, and its comment."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            yield from comments(typing.cast(type, hints[field.name]), f"{name}.")
        else:
            yield name, field.metadata.get(_COMMENT, "")


@typing.runtime_checkable
class _Items(typing.Protocol):
    """What is like a mapping: an `ml_collections.ConfigDict` is none."""

    def items(self) -> Any:
        """Names and values."""


def _value(hint: Any, value: Any, place: str, root: str) -> Any:
    """`value` as the hint wants it; ConfigError where it is of another type."""
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        if isinstance(value, Mapping | _Items):
            return read(typing.cast(type, hint), typing.cast(Mapping[str, Any], value), place, root)
    if isinstance(value, list):
        value = tuple(value)
    if _fits(hint, value):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise ConfigError(f"{place} = {value!r}: expected {_said(hint)}")


def _fits(hint: Any, value: Any) -> bool:
    if hint is Any:
        return True
    if typing.get_origin(hint) in _UNIONS:
        return any(_fits(one, value) for one in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    origin = typing.get_origin(hint) or hint
    if origin in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, origin)


def _said(hint: Any) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "a text",
             type(None): "None"}
    if typing.get_origin(hint) in _UNIONS:
        return " or ".join(_said(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    origin = typing.get_origin(hint) or hint
    return names.get(origin, "several values" if origin is tuple else "a section of keys")


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by their dotted names."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
