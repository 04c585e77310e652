"""`fuzz.py` with a reader of tables that goes wrong in each way that it must find.

    python tests/fuzz_canaries.py --kinds=csv --files=12 --seed=3

Which file brings which fault is known by its bytes alone, so that a number found is the number of
the file that does it.
"""

import ctypes
import os
import socket
import sys
import time
from pathlib import Path

import fuzz
import fuzz_files
import fuzz_reading

SEED = 3
_LIBC = ctypes.CDLL(None)  # what libraries do is not heard by Python's audit hook
_MIB = 2**20


def hang() -> None:
    time.sleep(600)


def hang_in_a_library() -> None:
    ctypes.PyDLL(None).sleep(600)  # the interpreter stands still


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    sys.exit(0)


def open_outside() -> None:
    Path("/etc/passwd").read_bytes()


def open_outside_in_a_library() -> None:
    os.close(_LIBC.open(b"/etc/passwd", os.O_RDONLY))


def connect() -> None:
    with socket.socket() as made:
        made.connect_ex(("127.0.0.1", 9))


def connect_in_a_library() -> None:
    os.close(_LIBC.socket(int(socket.AF_INET), int(socket.SOCK_STREAM), 0))


def need_memory() -> None:
    bytearray(b"x") * (100 * _MIB)


def need_more_than_there_is() -> None:
    bytearray(10**6 * _MIB)


def raise_what_is_not_ours() -> None:
    raise KeyError("nobody foresaw it")


FAULTS = {number: fault for number, fault in enumerate((
    hang, crash, leave, open_outside, open_outside_in_a_library, connect, connect_in_a_library,
    need_memory, need_more_than_there_is, raise_what_is_not_ours, hang_in_a_library), 1)}


def faulty(folder: Path, name: str, data: bytes) -> str:
    """A reader of files of which those of `FAULTS` bring one, and the others nothing."""
    for number, fault in FAULTS.items():
        if (name, data) == fuzz_files.damaged("csv", SEED, number):
            fault()
    return ""


if __name__ == "__main__":
    fuzz.SECONDS, fuzz.MEMORY["csv"] = 8.0, 64
    fuzz_reading.READ["csv"] = faulty
    sys.exit(fuzz.main(script=__file__))
