"""Some damaged files of each kind: read, or refused in one line; `make fuzz` tries thousands."""

import os

import fuzz
import fuzz_files
import fuzz_reading
import pytest
from fuzz_sound import SOUND


@pytest.mark.parametrize("kind", fuzz_reading.READ)
def test_damaged_files_are_read_or_refused_in_one_line(kind, tmp_path):
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
    assert fuzz.outside("/etc/passwd", folder) and fuzz.outside(f"{folder}/link", folder)
    assert not fuzz.outside(os.path.join(folder, "a.jpg"), folder)
