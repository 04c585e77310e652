"""Every config of a dataset, found by listing the folder of configs."""

import importlib
import re
from pathlib import Path

from ml_collections import ConfigDict

CONFIGS = Path(__file__).parents[2] / "configs"
SIZES = ("tiny", "base", "large")


def module(name: str):
    """The module of a config's name, "module" or "module:dataset"."""
    return importlib.import_module(f"configs.{name.partition(':')[0]}")


def names() -> list[str]:
    """The names of all but the demo's, which have one size, pretraining, what trains nothing, and
    data of one's own.

    Those have tests of their own.
    """
    found = []
    for path in sorted(CONFIGS.glob("*.py")):
        if path.stem.startswith(("demo", "pretrain", "zero_shot", "coco_server", "own")):
            continue
        if not hasattr(module(path.stem), "get_config"):
            continue
        datasets = getattr(module(path.stem), "DATASETS", None)
        found += [f"{path.stem}:{dataset}" for dataset in datasets] if datasets else [path.stem]
    return found


def variants() -> list[str]:
    """"module:words" of what configs have beside their datasets, such as "coco_caption:scst"."""
    return [f"{stem}:{words}" for stem in dict.fromkeys(name.partition(":")[0] for name in names())
            for words in getattr(module(stem), "VARIANTS", ())]


def make(name: str, *words: str) -> ConfigDict:
    """The config of a name with words such as a size and a preset."""
    return module(name).get_config(",".join(filter(None, [name.partition(":")[2], *words])))


def dataset(name: str) -> str:
    """What its docstring says to prepare, with the config's own dataset in place of the example."""
    command = r"-m data\.prepare (\w+) --raw=\S+ --out=prepared"
    (prepared,) = re.findall(command, module(name).__doc__)
    example = next(iter(getattr(module(name), "DATASETS", {"": None})))
    return prepared.replace(example, name.partition(":")[2] or example)
