"""What splits are called: train, val and test under any of their names, others in plain letters."""

import re

from mplug2_jax.contracts.errors import DataError

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "dev": "val",
          "validation": "val", "test": "test", "testing": "test"}


def split_name(said: str, taken: dict[str, str] | None = None) -> str:
    """A split as it is called on disk: train, val, test, or what it is called, in plain letters.

    Args:
        said: what it is called.
        taken: by the name on disk what was called so before; this one is added.

    Raises:
        DataError: another one was.
    """
    plain = said.strip()
    known = SPLITS.get(plain.casefold())
    name = known or "".join(c if c.isascii() and c.isalnum() else "_" for c in plain)
    first = taken.setdefault(name, plain) if taken is not None and not known else plain
    if first != plain:
        raise DataError(f"the splits {first!r} and {plain!r} would both be called {name!r}: "
                        "rename one of them, in plain letters")
    return name


def words(name: str) -> list[str]:
    """The words of a file's name, without capitals."""
    return [word for word in re.split(r"[\W_]+", name.casefold()) if word]


def split_of_file(stem: str) -> str:
    """The split that a file's name speaks of, such as `train-00000-of-00002`; "" for none."""
    found = {SPLITS[word] for word in words(stem) if word in SPLITS}
    return found.pop() if len(found) == 1 else ""
