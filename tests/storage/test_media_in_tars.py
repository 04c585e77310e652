"""Images and videos in tar files, found and read where they lie, of files and of a bucket."""

import logging

import numpy as np
import pytest
from raw_media import clip, image, put_tar

from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import DataError, MediaError
from mplug2_jax.inference import parts
from mplug2_jax.preprocess.files import find_media, load_clip, media_kind

FILES = {"1.jpg": image(1), "1.txt": "said of it", "b/2.mp4": clip(2), "._3.jpg": b"of macOS",
         "3.jpg": b"no image"}


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_members_are_found_and_read(where, tmp_path, request):
    put_tar(tmp_path / "0.tar", FILES)
    put_tar(tmp_path / "1.TAR", {"4.png": image(4, "PNG")})
    folder = tmp_path
    if where == "bucket":
        folder = paths.parse(request.getfixturevalue("place"))
        for name in ("0.tar", "1.TAR"):
            (folder / name).write_bytes((tmp_path / name).read_bytes())
    (folder / "list.txt").write_text("1.TAR\n0.tar\n")
    found = find_media([folder / "list.txt"])
    assert [str(one) for one in found] == [
        f"{folder}/{name}" for name in ("1.TAR/4.png", "0.tar/1.jpg", "0.tar/b/2.mp4",
                                        "0.tar/3.jpg")]
    assert [media_kind(one) for one in found] == ["image", "image", "video", "image"]
    (tmp_path / "1.jpg").write_bytes(FILES["1.jpg"])
    np.testing.assert_array_equal(load_clip(found[1], 2, 24), load_clip(tmp_path / "1.jpg", 2, 24))
    assert load_clip(found[2], 2, 24).shape == (2, 24, 24, 3)
    with pytest.raises(MediaError):
        load_clip(found[3], 2, 24)
    # As a job keeps them.
    work = tmp_path / "work"
    plan = parts.divide(found, 3, {"command": "caption"})
    assert plan.parts == 2 and plan.most == {"image": 2, "video": 1}
    parts.begin(work, plan, found)
    assert parts.load(work) == plan
    assert [one for number in range(2) for one in parts.files_of(work, number)] == found
    with pytest.raises(DataError, match="begun with other files"):
        parts.begin(work, parts.divide(found[::-1], 3, {"command": "caption"}), found[::-1])


def test_a_tar_that_is_cut_gives_what_it_holds(tmp_path, caplog):
    put_tar(tmp_path / "0.tar", {"1.jpg": image(1), "2.jpg": image(2) + b"\0" * 20_000})
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[:whole.index(image(2)) + 100])
    with caplog.at_level(logging.WARNING):
        found = find_media([tmp_path / "0.tar"])
    assert [one.member.name for one in found] == ["1.jpg", "2.jpg"]
    assert "it ends in the middle of 2.jpg" in caplog.text
    assert load_clip(found[0], 1, 24).shape == (1, 24, 24, 3)
    with pytest.raises(MediaError, match="bytes too early"):
        load_clip(found[1], 1, 24)
    (tmp_path / "1.tar").write_bytes(b"no tar at all" * 1000)
    with pytest.raises(ValueError, match="1.tar: "):
        find_media([tmp_path / "1.tar"])
    put_tar(tmp_path / "2.tar", {"1.txt": "of nothing"})
    with pytest.raises(ValueError, match="2.tar: no image or video in it"):
        find_media([tmp_path / "2.tar"])
