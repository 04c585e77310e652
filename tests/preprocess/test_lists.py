"""Lists of files, as editors, shells and spreadsheets leave them."""

import codecs
import os

import pytest

from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.files import find_media
from mplug2_jax.preprocess.lists import listed


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """A folder `set` of clips and lists; the current folder is another, with one clip."""
    for name in ("set/a.mp4", "set/sub/b c.mp4", "set/#1.mp4", "set/-x.mp4", "set/end .mp4 ",
                 "set/caf\u00e9.mp4", "set/'q'.mp4", "here/here.mp4", "here/a.mp4", "home/h.mp4",
                 "set/\u2028.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "set"


def of(clips, text, name="list.txt"):
    """What a list of these bytes, or of this text, names, without the folder."""
    (clips / name).write_bytes(text if isinstance(text, bytes) else os.fsencode(text))
    return [os.path.relpath(found, clips) if found.is_absolute() else f"./{found}"
            for found in listed(clips / name)]


@pytest.mark.parametrize("text, found", [
    ("a.mp4\nsub/b c.mp4", ["a.mp4", "sub/b c.mp4"]), ("a.mp4\r\n-x.mp4\r\n", ["a.mp4", "-x.mp4"]),
    ("\ufeffa.mp4\n", ["a.mp4"]), ("  a.mp4\t \n\n \n-x.mp4", ["a.mp4", "-x.mp4"]),
    ("./a.mp4\nsub/../a.mp4", ["a.mp4", "a.mp4"]),
    ("here.mp4", ["./here.mp4"]),  # not of the list's folder, but of this one
    ("# clips of May\na.mp4\n#1.mp4\n  # end", ["a.mp4", "#1.mp4"]),
    ("end .mp4 ", ["end .mp4 "]),  # so its name is
    ("\"sub/b c.mp4\"\n'a.mp4'\n'q'.mp4", ["sub/b c.mp4", "a.mp4", "'q'.mp4"]),
    ("~/h.mp4", ["../home/h.mp4"]), ("caf\u00e9.mp4", ["caf\u00e9.mp4"]),
    ("\u2028.mp4", ["\u2028.mp4"]),  # a line's end only to Unicode
    ("gone.mp4\nsub", ["gone.mp4", "sub"]), ("", []),
])
def test_a_line_is_a_file(clips, text, found):
    assert of(clips, text) == found
    assert of(clips, text.replace("\n", "\r\n").replace("\r\r", "\r")) == found


@pytest.mark.parametrize("mark, encoding", [
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le")])
def test_a_byte_order_mark_says_the_encoding(clips, mark, encoding):
    """As Windows' shells and editors write lists."""
    assert of(clips, mark + "caf\u00e9.mp4\r\na.mp4\r\n".encode(encoding)) == [
        "caf\u00e9.mp4", "a.mp4"]


def test_names_are_bytes(clips):
    (clips / os.fsdecode(b"latin\xe9.mp4")).touch()
    (found,) = listed_of(clips, b"latin\xe9.mp4\n")
    assert found.exists() and os.fsencode(found).endswith(b"latin\xe9.mp4")


def listed_of(clips, data):
    (clips / "l.txt").write_bytes(data)
    return listed(clips / "l.txt")


def test_what_is_no_list_is_said_in_a_line(clips):
    for data, said in ((b"\0\0\0\x18ftypmp42", "is no list of files, one a line"),
                       (codecs.BOM_UTF16_LE + b"a", "not the utf-16 that it begins as")):
        with pytest.raises(DataError, match=said):
            listed_of(clips, data)
    with pytest.raises(ValueError, match="no image or video in it"):
        find_media([clips / "empty.txt"] if (clips / "empty.txt").write_text("# none\n") else [])


def test_folders_of_a_list_are_looked_into_and_what_is_missing_is_kept(clips):
    (clips / "List.TXT").write_text("sub\na.mp4\ngone.mp4\na.mp4\n")
    assert find_media([clips / "List.TXT", clips / "a.mp4"]) == [
        clips / "sub/b c.mp4", clips / "a.mp4", clips / "gone.mp4"]
    assert find_media(["a.mp4"])[0].absolute() == clips.parent / "here/a.mp4"
