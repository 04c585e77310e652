"""Some damaged files of each kind: read, or refused in one line; `make fuzz` tries thousands."""

import collections
import os
import re
import subprocess
import sys

import fuzz
import fuzz_canaries
import fuzz_files
import fuzz_reading
import fuzz_watch
import pytest
from fuzz_sound import SOUND

from data import media


@pytest.mark.parametrize("kind", fuzz_reading.READ)
def test_damaged_files_are_read_or_refused_in_one_line(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(media, "guarded", media.guarded)  # which the readers replace
    inner = tmp_path.resolve() / "inner"
    inner.mkdir()
    (tmp_path / "secret.jpg").write_bytes(SOUND["image"]()["plain.jpg"])
    fuzz.media(inner / "media")
    found = []
    for number in range(30):
        name, data = fuzz_files.damaged(kind, 0, number)
        assert (name, data) == fuzz_files.damaged(kind, 0, number)
        with fuzz.fresh(inner) as own:
            found.append((number, name, *fuzz_reading.outcome(kind, own, name, data)))
    assert not [one for one in found if one[2] == "FAILED"]
    assert {one[2] for one in found} == {"good", "refused"}


def test_an_error_that_nobody_foresaw_is_a_failure(tmp_path, monkeypatch):
    for error, seen in ((KeyError("x"), "KeyError: 'x'"),
                        (fuzz_reading.foreseen()[0]("a\nb"), "not one line")):
        def fails(*arguments, error=error):
            raise error
        monkeypatch.setitem(fuzz_reading.READ, "tar", fails)
        status, why = fuzz_reading.outcome("tar", tmp_path, "x.tar", b"")
        assert status == "FAILED" and seen in why


def test_what_lies_outside_is_told(tmp_path):
    folder = str(tmp_path.resolve())
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert fuzz_watch.outside("/etc/passwd", folder)
    assert fuzz_watch.outside(f"{folder}/link", folder)
    assert not fuzz_watch.outside(os.path.join(folder, "a.jpg"), folder)


@pytest.mark.long
def test_each_way_to_fail_is_found_with_the_number_of_its_file():
    """Of what watches in `make fuzz`; the next test shows one of them."""
    names = {number: fault.__name__ for number, fault in fuzz_canaries.FAULTS.items()}
    files = [sys.executable, fuzz_canaries.__file__, "--kinds=csv", f"--seed={fuzz_canaries.SEED}"]
    found = subprocess.run([*files, f"--files={len(names) + 2}"], capture_output=True, text=True,
                           timeout=300)
    assert found.returncode == 1 and not found.stderr, found.stderr
    told = collections.defaultdict(set)
    for what, number in re.findall(r"\n  (\S.*)\n    python \S+fuzz_canaries.py --kinds=csv "
                                   r"--seed=\d+ --only=(\d+)", found.stdout):
        told[names.get(int(number), number)].add(what)
    seen = {
        "hang": "hung over 8 s", "hang_in_a_library": "hung over 8 s",
        "crash": "ended with code -11", "leave": "ended with code 0",
        "open_outside": "outside: open /etc/passwd", "connect": "outside: socket.__new__",
        "need_memory": "MiB", "need_more_than_there_is": "MemoryError",
        "raise_what_is_not_ours": "KeyError: 'nobody foresaw it'"}
    if fuzz.strace():
        seen |= {"open_outside_in_a_library": "outside, by strace: open /etc/passwd",
                 "connect_in_a_library": "outside, by strace: socket(AF_INET"}
    assert told.keys() == seen.keys(), found.stdout
    for name, what in seen.items():
        assert any(what in one for one in told[name]), (name, told[name])
    row = found.stdout.splitlines()[2].split("|")
    assert int(row[1]) == len(names) + 2 and 95 < float(row[6]) < 150, row  # files, MiB


def test_a_file_is_made_again_by_its_number(tmp_path):
    again = subprocess.run(
        [sys.executable, fuzz_canaries.__file__, "--kinds=csv", f"--seed={fuzz_canaries.SEED}",
         "--only=10", f"--keep={tmp_path}"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 1 and "--only=10" in again.stdout
    assert again.stderr.rstrip().endswith("KeyError: 'nobody foresaw it'")
    name, data = fuzz_files.damaged("csv", fuzz_canaries.SEED, 10)
    assert (tmp_path / f"csv_{fuzz_canaries.SEED}_10_{name}").read_bytes() == data
