"""What commands do with their words and their output, in a child of this process: it is quick."""

import asyncio
import errno
import gc
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
import tensorstore

from mplug2_jax import launch

FULL = Path("/dev/full")


def many(*words):
    """Prints more than a pipe holds."""
    for number in range(20_000):
        print(number, *words)


def few(*words):
    print("\n".join(words))


def full_disk(*words):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x.jsonl")


def own_pipe(*words):
    """Another pipe than the output breaks."""
    read, write = os.pipe()
    os.close(read)
    os.write(write, b"x")


def left_alone(*words):
    """A write ends that nobody waits for any more, as Orbax leaves them; then the disk is full."""
    promise, future = tensorstore.Promise.new()

    async def wait():
        await future

    loop = asyncio.new_event_loop()
    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    promise.set_result(1)
    del task
    gc.collect()
    full_disk()


def lost(*words):
    """An error where nobody can catch it."""
    class Lost:
        def __del__(self):
            raise RuntimeError("lost")

    Lost()


def child(run, *words, out="pipe", read=None):
    """Runs a command so: (exit code or signal, what it printed, what it said of errors).

    Args:
      run: the command.
      words: of the command line.
      out: what its output is: a "pipe", a "full" disk, or "closed".
      read: bytes that are read of it before it is closed at the other end; None for all.
    """
    reading, writing = os.pipe()
    errors, telling = os.pipe()
    gone, closed = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may fork: it computes nothing
        process = os.fork()
    if not process:
        os.close(reading)
        if read == 0:
            os.read(gone, 1)  # until the other end is closed
        target = os.open(FULL, os.O_WRONLY) if out == "full" else writing
        os.dup2(target, 1)
        os.dup2(telling, 2)
        os.close(writing)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        if out == "closed":
            os.close(1)
            sys.stdout = None
        sys.argv = ["command.py", *map(str, words)]
        code = 1
        try:
            launch.main(run, ("WORD...",))
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:
            os.write(2, f"Traceback {error!r}".encode())
        os._exit(code)
    os.close(writing)
    os.close(telling)
    with os.fdopen(reading, "rb") as lines:
        printed = b"" if read == 0 else lines.read() if read is None else lines.read(read)
    os.write(closed, b"x")
    os.close(gone)
    os.close(closed)
    with os.fdopen(errors, "rb") as lines:
        said = lines.read().decode()
    status = os.waitpid(process, 0)[1]
    return os.waitstatus_to_exitcode(status), printed.decode(), said


def test_where_nobody_reads_on_a_command_ends_as_other_tools_do():
    """By the pipe's signal, which a shell calls 141, and without a word."""
    for run, read in ((many, 10), (many, 0), (few, 0)):
        code, _, said = child(run, "a", read=read)
        assert (code, said) == (-signal.SIGPIPE, ""), run
    assert child(few, "--help", read=0)[::2] == (-signal.SIGPIPE, "")
    code, printed, said = child(many, "a")
    assert code == 0 and printed.endswith("19999 a\n") and not said


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line():
    for run in (few, many):
        code, _, said = child(run, "a", out="full")
        assert code == 2 and said.count("\n") == 1, said
        assert said.startswith("error: ") and "no space left on device" in said
    assert child(full_disk, "a") == (2, "", "error: /data/x.jsonl: no space left on device\n")


def test_what_nobody_waits_for_is_not_said_and_other_errors_are():
    assert child(left_alone, "a") == (2, "", "error: /data/x.jsonl: no space left on device\n")
    code, _, said = child(lost, "a")
    assert code == 0 and "RuntimeError: lost" in said


def test_another_pipe_that_breaks_is_an_error_and_not_silence():
    assert child(own_pipe, "a") == (2, "", "error: broken pipe\n")


def test_without_an_output_nothing_is_printed():
    assert child(few, "a", out="closed") == (0, "", "")


def test_files_and_texts_that_begin_with_a_dash_are_no_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("-b.mp4", "--x.mp4", "-clips", "-k=v.mp4", "-debug.mp4")
    for name in names:
        Path(name).touch()
    for given, found in [
            (names, names), (("a", "-b.mp4", "--nodebug", "c"), ("a", "-b.mp4", "c")),
            (("-5 or 5?", "a"), ("-5 or 5?", "a")),
            (("-why?", "-5", "-5=x", "--3.mp4", "-5e", "-(a)"),
             ("-why?", "-5", "-5=x", "--3.mp4", "-5e", "-(a)")),
            (("--", "-b.mp4", "-gone.mp4", "--debug"), ("-b.mp4", "-gone.mp4", "--debug")),
            (("a", "--", "-gone"), ("a", "-gone")), (("a", "-"), ("a", "-")),
            (("--verbosity", "-1", "a"), ("a",)), (("--verbosity=-1", "a"), ("a",))]:
        code, printed, said = child(few, *given)
        assert (code, said) == (0, ""), said
        assert tuple(printed.splitlines()) == found
    for given in (("-gone.mp4",), ("--checkpiont=x", "a"), ("--checkpiont=why?", "a")):
        code, printed, said = child(few, *given)
        assert code == 2 and "Unknown command line flag" in said and not printed
    Path("--debug").touch()  # a flag's name is the flag's
    assert child(few, "--debug", "a")[1] == "a\n"
