"""Data of one's own: a folder of media, and tables of what is said of them.

`python -m data.prepare table --raw=FOLDER --table=FILE --out=OUT`; see `docs/own_data.md`.
"""

from data.datasets.own.opening import elsewhere, read_media
from data.datasets.own.table import Options, dataset

DATASETS = ()  # it is none that is published: `dataset` makes one of what the command line says

__all__ = ["DATASETS", "Options", "dataset", "elsewhere", "read_media"]
