"""The plan of a job in its folder: the same job goes on, another one is told what differs."""

from pathlib import Path

import pytest

from mplug2_jax.contracts.errors import DataError
from mplug2_jax.inference import parts
from mplug2_jax.inference.parts import begin, divide

FILES = [Path(f"{number}.{'jpg' if number % 3 else 'mp4'}") for number in range(23)]
SETTINGS = {"command": "qa", "step": 8, "video": {"frames": 4, "task": {"sizes": (1, 2)}}}


def test_a_plan_counts_what_a_batch_may_have():
    plan = divide(FILES, 10, {})
    assert plan.parts == 3 and plan.files == 23 and plan.most == {"image": 7, "video": 4}
    assert divide(FILES[::-1], 10, {}).digest != plan.digest


@pytest.mark.parametrize("files, size, settings, message", [
    (FILES, 9, SETTINGS, "was begun with part_files=10, not 9"),
    (FILES[:-1], 10, SETTINGS, "was begun with files=23, not 22"),
    (FILES[::-1], 10, SETTINGS, "was begun with other files, as many as these, or in another"),
    (FILES, 10, SETTINGS | {"command": "caption"}, "was begun with command=qa, not caption"),
    (FILES, 10, SETTINGS | {"video": {"frames": 5, "task": {"sizes": (1, 2)}}},
     "was begun with video.frames=4, not 5"),
    (FILES, 10, SETTINGS | {"more": 1}, "was begun with more=None, not 1"),
    (FILES, 10, {"step": 8, "video": SETTINGS["video"]}, "was begun with command=qa, not None")])
def test_another_job_is_told_what_differs(files, size, settings, message, tmp_path):
    begin(tmp_path, divide(FILES, 10, SETTINGS), FILES)
    (tmp_path / ".a.partial").write_text("of a process that was killed")
    begin(tmp_path, divide(FILES, 10, SETTINGS), FILES)
    assert not (tmp_path / ".a.partial").exists()
    assert [one for number in range(3) for one in parts.files_of(tmp_path, number)] == FILES
    with pytest.raises(DataError, match=f"^{tmp_path} {message}") as caught:
        begin(tmp_path, divide(files, size, settings), files)
    assert "another --out, or delete it" in str(caught.value)


def test_a_plan_that_is_damaged_is_told(tmp_path):
    (tmp_path / parts.PLAN).write_text('{"settings": ')
    with pytest.raises(DataError, match="job.json is damaged: delete"):
        parts.load(tmp_path)
