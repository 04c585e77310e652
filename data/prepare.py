"""Prepares a dataset once: `python -m data.prepare moving_digits --out=DIR [--seed=0 ...]`."""

import argparse
import dataclasses
import sys
import time

from data import moving_digits_builder
from data.builder import DataError

# Each has `Settings`, a dataclass whose fields become flags, and `prepare(out, settings,
# processes)`.
DATASETS = {"moving_digits": moving_digits_builder}


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="dataset", required=True)
    for name, dataset in DATASETS.items():
        command = commands.add_parser(name, help=dataset.__doc__)
        command.add_argument("--out", required=True, help="folder to write to")
        command.add_argument("--processes", type=int, default=2, help="processes that make records")
        for field in dataclasses.fields(dataset.Settings):
            command.add_argument(f"--{field.name}", type=field.type, default=field.default)
    options = vars(parser.parse_args(argv))
    dataset = DATASETS[options.pop("dataset")]
    out, processes = options.pop("out"), options.pop("processes")
    start = time.monotonic()
    try:
        sizes = dataset.prepare(out, dataset.Settings(**options), processes)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for split, size in sizes.items():
        print(f"{split:20} {size:8,} records")
    print(f"{out} is ready ({time.monotonic() - start:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
