"""Readers of the raw public files, one module a family of datasets.

A dataset is known by standing in the `DATASETS` of a file of this folder, or by being the only one
in those of any other module that Python finds.
"""

import importlib
import pkgutil

from data.datasets.raw import Dataset, Entry, Media, Missing, RawFolder
from mplug2_jax.contracts.errors import DataError

__all__ = ["DATASETS", "Dataset", "Entry", "Media", "Missing", "RawFolder", "load"]

_MODULES = (importlib.import_module(f"{__name__}.{file.name}")
            for file in pkgutil.iter_modules(__path__))
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for module in _MODULES for dataset in getattr(module, "DATASETS", ())
}


def load(name: str) -> Dataset:
    """The dataset of that name in `DATASETS`, or the one of the module of that name.

    Raises:
        DataError: there is none.
    """
    if name in DATASETS:
        return DATASETS[name]
    expected = f"expected one of {', '.join(sorted(DATASETS))}, or a module that Python finds"
    try:
        module = importlib.import_module(name)
    except (ImportError, TypeError, ValueError) as error:  # TypeError: `./mine.py`
        raise DataError(f"dataset {name!r}: {expected} ({error})") from None
    found = getattr(module, "DATASETS", ())
    if len(found) != 1:
        raise DataError(
            f"dataset {name!r}: {module.__file__} has {len(found)} in DATASETS; "
            f"{expected} with one"
        )
    return found[0]
