"""What every command-line script shares: config flags, and errors of one line instead of traces.

As a command it starts several processes of a script on this machine (`parallel.local`).
"""

import contextlib
import functools
import gc
import hashlib
import itertools
import json
import logging as python_logging
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from mplug2_jax.contracts import exits, paths
from mplug2_jax.contracts.errors import ConfigError, EndsRun
from mplug2_jax.parallel import ending, hosts, local
from mplug2_jax.parallel.signals import SIGNALS, Interrupted

# What wrong input raises, here and in the libraries, a run that diverges, the machine's own (no
# room, no permission), and a signal.
EXPECTED = (ValueError, OSError, FloatingPointError, EndsRun, Interrupted)
_LOOP_CLOSED = "Event loop is closed"  # as asyncio says it
# Likewise, of what Orbax no longer waits for where one array cannot be written.
_UNAWAITED = ("was destroyed but it is pending", "exception was never retrieved")
_NAME = re.compile(r"[\w.\-\[\]]+")  # of a flag, or of a key of a config
LARGE_FILE = 2 ** 24  # bytes, from which on a config's file is known by its size
_WORD = "\0"  # in front of an argument that is no flag: no argument can have this character


def main(run: Callable[..., int | None], arguments: tuple[str, ...] = (),
         distributed: bool = False) -> None:
    """Runs a script under absl; wrong input ends in one line and its exit code (`contracts.exits`).

    Args:
      run: the script; gets the arguments that are no flags, and may give an exit code.
      arguments: what they are, for the message where their number is wrong; one whose name ends
        with "..." stands for one or more.
      distributed: whether it can be one of several processes (`parallel.hosts`): all of them
        end when one does, with exit code 3 those that had no error of their own.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = [one.removeprefix(_WORD)
                    for one in flags.FLAGS(mark_words(argv) if arguments else argv)]
            if "config" in flags.FLAGS and flags.FLAGS.config is not None:
                _ = flags.FLAGS.config.items  # raises what kept the file from being read
            return rest
        # The config is read while flags are parsed: a wrong key is an AttributeError or KeyError
        # there, a wrong type a TypeError.
        except (flags.Error, AttributeError, KeyError, SyntaxError, TypeError,
                *EXPECTED) as error:
            fail(error)

    @functools.wraps(run)
    def guarded(argv: list[str]) -> int | None:
        say_what_matters()
        try:
            check_number(argv[1:], arguments)
            if distributed:
                hosts.join(flags.FLAGS.coordinator, flags.FLAGS.processes, flags.FLAGS.process,
                           flags.FLAGS.join_timeout, flags.FLAGS.lost_after)
                if not hosts.is_first():  # one of them tells what all of them do
                    logging.set_verbosity(logging.WARNING)
            code = run(*argv[1:])
            hosts.leave()
            return code
        except EXPECTED as error:
            end_together(error)
            if isinstance(error, BrokenPipeError) and nobody_reads():
                raise
            if not flags.FLAGS.debug:
                fail(error)
            end_all(error)
            raise
        except BaseException as error:
            if isinstance(error, jax.errors.JaxRuntimeError):
                hosts.await_loss()
            end_all(error)
            raise

    SIGNALS.listen()
    collect_less()
    flags.DEFINE_bool("debug", False, "Show the whole trace of an error.")
    if distributed:
        define_hosts()
    show_in_help(run.__module__, __name__)
    with ended_by_reader():
        app.run(guarded, flags_parser=parse)


def check_number(given: list[str], arguments: tuple[str, ...]) -> None:
    """ValueError where a command line has more or fewer arguments than a script has."""
    more = any(name.endswith("...") for name in arguments)
    if len(given) < len(arguments) or len(given) > len(arguments) and not more:
        raise ValueError(f"expected {'at least ' * more}{len(arguments)} argument(s) beside the "
                         f"flags{': ' + ' '.join(arguments) if arguments else ''}; got "
                         f"{' '.join(given) or 'none'}")


def mark_words(argv: list[str]) -> list[str]:
    """The command line, `_WORD` in front of words that begin with "-" and are no flags.

    Those are files that are there, as ids of videos may begin so, texts of several words, and what
    no flag can be called, as "-why?" or "-5". What follows "--" is no flag anyway.
    """
    found, rest, valued = argv[:1], iter(argv[1:]), False
    for one in rest:
        name, equals, _ = one.lstrip("-").partition("=")
        known = flags.FLAGS[name] if name in flags.FLAGS else None
        if one.startswith("-") and name and known is None and (
                " " in name or os.path.lexists(one)
                or not valued and (name[0].isdigit() or not _NAME.fullmatch(name))):
            one = _WORD + one
        found.append(one)
        # A key of a config, which is a flag once that is read, and may have a number below 0.
        valued = one.startswith("--") and "." in name and not equals
        if one == "--" or known is not None and one.startswith("-") and not (
                equals or known.boolean):
            found += rest if one == "--" else itertools.islice(rest, 1)
    return found


@contextlib.contextmanager
def ended_by_reader() -> Iterator[None]:
    """Ends the process as usual tools end where nobody reads on: `... | head -1`.

    All that is left to be written is written within it, so that an error of that is one line.
    """
    try:
        try:
            yield
        finally:
            flush_output()
    except BrokenPipeError:
        if not nobody_reads():
            raise
        discard_output()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)


def flush_output() -> None:
    """Writes what is left; where it cannot be, on a full disk, ends in one line and exit code 2.

    An error that ends the process already is not followed by another.
    """
    if sys.stdout is None:  # closed by whoever started the process
        return
    ending = sys.exception()
    fails = ending is not None and getattr(ending, "code", 1) not in (None, 0)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        if not fails:
            print(f"error: standard output: {one_line(error)}", file=sys.stderr, flush=True)
            sys.exit(2)


def nobody_reads() -> bool:
    """Whether standard output is a pipe that was closed at its other end."""
    poll = select.poll()
    try:
        poll.register(1, 0)  # errors come unasked
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except OSError:
        return False


def discard_output() -> None:
    """Lets what is still to be written vanish, which Python would complain of at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def collect_less() -> None:
    """Python looks for garbage less often, for tracing makes objects by the million that stay.

    To look through all of them again and again took a tenth of the time until a first step.
    """
    gc.set_threshold(20_000, 20, 20)


def show_in_help(*modules: str) -> None:
    """Flags of these modules are the program's own: `--help` shows only those of its main module.
    """
    for module in modules:
        for flag in flags.FLAGS.get_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def define_hosts() -> None:
    """The flags of a run of several processes; the first three are found on TPU pods and Slurm."""
    environment = os.environ.get
    flags.DEFINE_string("coordinator", environment("JAX_COORDINATOR_ADDRESS"),
                        "HOST:PORT of process 0, for several processes; all of these by default "
                        "from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.")
    flags.DEFINE_integer("processes", environment("JAX_NUM_PROCESSES"), "How many there are.",
                         lower_bound=1)
    flags.DEFINE_integer("process", environment("JAX_PROCESS_ID"), "Which this is, from 0 on.")
    flags.DEFINE_integer("join_timeout", 300, "Seconds to wait for the others at the start.",
                         lower_bound=1)
    flags.DEFINE_integer("lost_after", 60, "Seconds without a sign of life after which a process "
                         "counts as lost, and the run ends.", lower_bound=5)


def end_together(error: BaseException) -> None:
    """Where all processes raise an error alike, waits for what any of them still writes."""
    if isinstance(error, EndsRun) and error.alike:
        hosts.leave()


def end_all(error: BaseException) -> None:
    """Ends all processes, if there are several, for an error whose whole trace is wanted."""
    ending.note(exits.ERROR, f"{type(error).__name__}: {one_line(error)}")
    if hosts.several():
        traceback.print_exc()
        hosts.fail(f"{type(error).__name__}: {one_line(error)}", exits.ERROR)


def say_what_matters() -> None:
    """Logs in INFO, without what libraries say for their authors."""
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(of_interest)
    sys.unraisablehook = say_unraised


def of_interest(record: python_logging.LogRecord) -> bool:
    """Whether a line is ours or a warning: libraries say in INFO what only their authors ask.

    What fails in Orbax's threads is raised where the run saves next, and is no trace before that.
    """
    ours = "site-packages" not in record.pathname
    traced = record.exc_info is not None and "orbax" in record.pathname
    left = record.name == "asyncio" and any(said in record.getMessage() for said in _UNAWAITED)
    return (ours or record.levelno >= python_logging.WARNING and not traced) and not left


def say_unraised(what: "sys.UnraisableHookArgs") -> None:
    """Prints what is raised where nobody can catch it, as Python does, but for what says nothing.

    Where one array cannot be written, Orbax no longer waits for the others, and closes what would
    hear of them: as each ends, TensorStore fails to say so.
    """
    closed = isinstance(what.exc_value, RuntimeError) and str(what.exc_value) == _LOOP_CLOSED
    if not closed or what.object is not None:
        sys.__unraisablehook__(what)


def fail(error: BaseException) -> NoReturn:
    """Prints the error in one line and ends the process with code 2, or with the error's own."""
    code = exits.by_signal(error.number) if isinstance(error, Interrupted) else (
        error.code if isinstance(error, EndsRun) else exits.WRONG)
    hosts.fail(one_line(error), code)
    ending.note(code, one_line(error))
    ending.print_error(one_line(error))
    sys.exit(code)


def one_line(error: BaseException) -> str:
    """The error's text; a KeyError's own is its message quoted, or the key alone."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return " ".join(f"{where}{error.strerror.lower()}".split())
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
    alone = isinstance(error, KeyError) and " " not in text
    return f"there is no key or section {text}" if alone else text


def define_config(what: str) -> flags.FlagHolder:
    """The flag `--config`, a Python file, and those that override its keys.

    Streams and evaluations have keys that they do not name, so that new ones are taken; what reads
    a section refuses those that it does not know.
    """
    return config_flags.DEFINE_config_file("config", None, what, lock_config=False,
                                           accept_new_attributes=True)


def given(flag: str, value: Any) -> Any:
    """The value of a flag.

    Raises:
      ValueError: it was not given.
    """
    if not value:
        raise ValueError(f"--{flag} is missing; give it")
    return value


def keep_compilations() -> None:
    """Compiled programs are found again: in `.cache/jax`, or where JAX was told to keep them.

    JAX_COMPILATION_CACHE_DIR may be a bucket, `gs://...`, with fsspec's package for it (`gcsfs`).

    Raises:
      ConfigError: which is not installed.
    """
    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder:
        jax.config.update("jax_compilation_cache_dir", str(Path(".cache/jax").absolute()))
    elif "://" in folder:
        try:
            fsspec.get_filesystem_class(folder.partition("://")[0])
        except (ImportError, ValueError) as error:
            raise ConfigError(f"JAX_COMPILATION_CACHE_DIR={folder}: {error}") from error
        # XLA's own, of what it tuned for a GPU, would lie beside them, and knows no buckets.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def code() -> dict[str, str]:
    """A hash of each loaded file that no package manager installed.

    Those of the project go by their path, others (a task of one's own) by their module's name.
    """
    root, installed = Path(__file__).parents[1], (sys.prefix, sys.base_prefix)
    hashes = {}
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "")
        if path.suffix != ".py" or "site-packages" in path.parts or not path.is_file():
            continue
        own = path.is_relative_to(root)
        if own or not any(path.is_relative_to(folder) for folder in installed):
            said = str(path.relative_to(root)) if own else name
            hashes[said] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return hashes


def files_of(config: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """What each file is that a value of a config names, such as a list of classes, by its key.

    Hosts may have copies of their own. A hash, of large files the size.
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= files_of(value, f"{place}{key}.")
        elif isinstance(value, str) and value and os.path.isfile(value):
            size = os.path.getsize(value)
            found[place + key] = (f"{size} bytes" if size > LARGE_FILE else hashlib.sha256(
                Path(value).read_bytes()).hexdigest()[:12])
    return found


def plain(config: ConfigDict) -> dict[str, Any]:
    """A config as plain values that JSON can hold."""
    return {key: plain(value) if isinstance(value, ConfigDict)
            else list(value) if isinstance(value, tuple) else value
            for key, value in config.items()}


def open_log(path: Path, last_step: int) -> Any:
    """Opens a log of JSON lines for more, without the lines of steps after `last_step`.

    A run that was killed has logged steps that its last checkpoint does not hold; they come again.
    """
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last_step]
    if len(kept) < len(lines):
        paths.write(path, "".join(kept))
    return paths.append(path)


def require_same(key: str, stored: dict[str, Any], given: dict[str, Any],
                 free: tuple[str, ...] = ()) -> None:
    """Raises ConfigError where a config section differs from the stored one, but in `free` keys."""
    for name in sorted((stored.keys() | given.keys()) - set(free)):
        if stored.get(name) != given.get(name):
            raise ConfigError(f"{key}.{name} = {given.get(name)!r}, but the checkpoint was made "
                              f"with {stored.get(name)!r}: give it that, or another workdir")


if __name__ == "__main__":
    sys.exit(local.main())
