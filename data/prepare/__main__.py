"""Prepares a dataset once: `python -m data.prepare DATASET --out=DIR`.

The two of moving digits are made from nothing, every other one from the raw files in `--raw=DIR`,
which `docs/data.md` lists. DATASET may also be a module of your own (`docs/architecture.md`).
`python -m data.prepare table --raw=DIR --table=FILE --out=DIR` reads a table of
one's own (`docs/own_data.md`). Interrupted, the same command goes on where it stopped.
`python -m data.prepare index DIR` writes the indexes (`data/written/schema.py`) that a dataset
lacks, from its shards.
"""

import argparse
import dataclasses
import signal
import sys
import time

from data.datasets import DATASETS, Dataset, load, own
from data.datasets.own.columns import GIVEN
from data.demo import builder as moving_digits_builder
from data.demo import tasks_builder as moving_digits_tasks_builder
from data.prepare import prepare, remote
from data.prepare.index import write_missing
from data.prepare.plan import settings_of
from data.written.folders import find_versions
from mplug2_jax.contracts.errors import ConfigError, DataError
from mplug2_jax.contracts.machine import machine_error
from mplug2_jax.contracts.paths import parse

# Each has `Settings`, a dataclass whose fields become flags, and `prepare(out, settings,
# processes)`.
MADE = {
    "moving_digits": moving_digits_builder,
    "moving_digits_tasks": moving_digits_tasks_builder,
}
INDEX, TABLE = "index", "table"


def _add_table(command: argparse.ArgumentParser) -> None:
    """Adds the flags of tables."""
    command.add_argument("--table", action="append", required=True,
                         help="a table; each of several is a split")
    for role in GIVEN:
        command.add_argument(f"--{role}", default="", metavar="COLUMN",
                             help=f"of the {role}, where its name does not say so; - for none")
    command.add_argument("--boxes", default="", help="xyxy or xywh, absolute or relative: a box is "
                         "x0, y0, x1, y1 or x, y, width, height, in pixels or in shares")
    command.add_argument("--share", default="", help="of the media for other splits, such as "
                         "val=0.1,test=0.1")
    command.add_argument("--seed", type=int, default=0, help="of the shares")
    command.add_argument("--roots", default="", help="further folders in which media may lie, with "
                         "commas between them")


def _table(options: dict) -> Dataset:
    """The dataset of the flags of `_add_table`, which it takes out of the options."""
    given = {role: options.pop(role) for role in GIVEN}
    roots = tuple(filter(None, options.pop("roots").split(",")))
    return own.dataset(own.Options(
        tuple(options.pop("table")), given, roots,
        **{name: options.pop(name) for name in ("boxes", "share", "seed")}), options["raw"])


def _parser(argv: list[str]) -> tuple[argparse.ArgumentParser, dict[str, Dataset]]:
    """What reads the command line, and the raw datasets that it may name, one's own too."""
    parser = argparse.ArgumentParser(description=__doc__)
    raw = dict(DATASETS)
    if argv and not argv[0].startswith("-") and argv[0] not in (*MADE, INDEX, TABLE):
        try:
            raw[argv[0]] = load(argv[0])
        except DataError as error:
            parser.error(str(error))
    commands = parser.add_subparsers(dest="dataset", required=True)
    for name, made in MADE.items():
        command = commands.add_parser(name, help=made.__doc__)
        for field in dataclasses.fields(made.Settings):
            command.add_argument(f"--{field.name}", type=field.type, default=field.default)
    for name, dataset in (*raw.items(), (TABLE, None)):
        command = commands.add_parser(name, help=dataset.summary if dataset else "One's own table.")
        command.add_argument("--raw", required=True, help="folder of the raw files")
        if dataset is None:
            _add_table(command)
        command.add_argument("--shard_records", type=int, default=0, help="records in a shard")
        command.add_argument("--in_place", action="store_true", help="leave the media where they "
                             "are, and write where that is")
        command.add_argument(
            "--beam_runner", default="", help="Apache Beam runner; further options are its own"
        )
    for command in commands.choices.values():
        command.add_argument("--out", required=True, help="folder to write to")
    command = commands.add_parser(INDEX, help="Writes the indexes that a dataset lacks.")
    command.add_argument("out", metavar="DIR", help="the dataset's folder, of whatever origin")
    for command in commands.choices.values():
        command.add_argument("--processes", type=int, default=2, help="processes that write")
    return parser, raw


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser, raw = _parser(argv)
    known, further = parser.parse_known_args(argv)
    options = vars(known)
    if further and not options.get("beam_runner"):
        parser.error(f"unknown arguments: {' '.join(further)}")
    name, out, start = options.pop("dataset"), options.pop("out"), time.monotonic()
    try:
        if name == INDEX:
            sizes = {f"{folder.parent.name} {split}": size for folder in find_versions(parse(out))
                     for split, size in write_missing(folder, options["processes"]).items()}
        elif name in MADE:
            processes = options.pop("processes")
            settings = MADE[name].Settings(**options)
            sizes = remote.write(out, name, dataclasses.asdict(settings),
                                 lambda here: MADE[name].prepare(here, settings, processes))
        else:
            dataset = _table(options) if name == TABLE else raw[name]
            settings = settings_of(dataset, *(options[key] for key in (
                "raw", "shard_records", "in_place")))
            sizes = remote.write(
                out, dataset.name, settings, lambda here: prepare(
                    dataset, out=here, beam_options=further, **options), options["beam_runner"])
    except (ConfigError, DataError, OSError, MemoryError) as error:
        refused = machine_error(error, getattr(error, "filename", None) or out)
        kept = "; what is done is kept, the same command goes on" if refused else ""
        print(f"error: {' '.join(str(refused or error).split())}{kept}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what is done is kept, the same command goes on", file=sys.stderr)
        return 130
    for split, size in sizes.items():
        print(f"{split:20} {size:8,} records")
    print(f"{out} is ready ({time.monotonic() - start:.1f} s)")
    return 0


def _stop(number: int, frame: object) -> None:
    """Ends the command as Ctrl-C does, its processes with it."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
