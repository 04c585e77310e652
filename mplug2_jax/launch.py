"""What every command-line script shares: config flags, and errors of one line instead of traces."""

import json
import logging as python_logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from absl import app, flags, logging
from ml_collections import ConfigDict

from mplug2_jax.config import ConfigError

# What wrong input raises, here and in the libraries, and a run that diverges.
EXPECTED = (ValueError, FileNotFoundError, FloatingPointError)


def main(run: Callable[..., None], arguments: tuple[str, ...] = ()) -> None:
    """Runs a script under absl; wrong flags, configs or data end in one line and exit code 2.

    Args:
      run: the script; gets the arguments that are no flags.
      arguments: what they are, for the message where their number is wrong; one whose name ends
        with "..." stands for one or more.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        # The config file is read and overridden while flags are parsed: a wrong key is an
        # AttributeError or KeyError there, a wrong type a TypeError.
        except (flags.Error, AttributeError, KeyError, TypeError, *EXPECTED) as error:
            fail(error)

    more = any(name.endswith("...") for name in arguments)

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.INFO)
        logging.get_absl_handler().addFilter(of_interest)
        try:
            given = len(argv) - 1
            if given < len(arguments) or given > len(arguments) and not more:
                raise ValueError(f"expected {'at least ' * more}{len(arguments)} argument(s) "
                                 "beside the flags"
                                 f"{': ' + ' '.join(arguments) if arguments else ''}; got "
                                 f"{' '.join(argv[1:]) or 'none'}")
            run(*argv[1:])
        except EXPECTED as error:
            if flags.FLAGS.debug:
                raise
            fail(error)

    flags.DEFINE_bool("debug", False, "Show the whole trace of an error.")
    app.run(guarded, flags_parser=parse)


def of_interest(record: python_logging.LogRecord) -> bool:
    """Whether a line is ours or a warning: libraries say in INFO what only their authors ask."""
    return record.levelno >= python_logging.WARNING or "site-packages" not in record.pathname


def fail(error: BaseException) -> None:
    """Prints the error in one line and ends the process with code 2."""
    # A KeyError's own text is its message quoted.
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
    print(f"error: {text}", file=sys.stderr, flush=True)
    sys.exit(2)


def plain(config: ConfigDict) -> dict[str, Any]:
    """A config as plain values that JSON can hold."""
    return {key: plain(value) if isinstance(value, ConfigDict)
            else list(value) if isinstance(value, tuple) else value
            for key, value in config.items()}


def open_log(path: Path, last_step: int) -> TextIO:
    """Opens a log of JSON lines for more, without the lines of steps after `last_step`.

    A run that was killed has logged steps that its last checkpoint does not hold; they come again.
    """
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last_step]
    if len(kept) < len(lines):
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept))
        partial.replace(path)
    return open(path, "a")


def require_same(key: str, stored: dict[str, Any], given: dict[str, Any]) -> None:
    """Raises ConfigError, naming the key, where a config section differs from the stored one."""
    for name in sorted(stored.keys() | given.keys()):
        if stored.get(name) != given.get(name):
            raise ConfigError(f"{key}.{name} = {given.get(name)!r}, but the checkpoint was made "
                              f"with {stored.get(name)!r}: give it that, or another workdir")
