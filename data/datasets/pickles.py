"""Pickles that some datasets are published as, read without running what they may hold."""

import pickle
from pathlib import Path

from mplug2_jax.contracts.errors import DataError


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, strings and numbers; refuses every class and function.

    A pickle may otherwise run any program when it is read.
    """

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def read_pickle(path: Path):
    """The lists, dicts, strings and numbers of a pickle file.

    Raises:
        DataError: it is no pickle, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            # The published files are Python 2's, whose strings are bytes.
            return _PlainUnpickler(file, encoding="utf-8").load()
    # Damaged pickles raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is not a pickle of plain values: {reason}") from error
