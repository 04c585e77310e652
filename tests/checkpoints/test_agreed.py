"""Hosts whose disks differ: all do as the first one says, or end in a line that names the other."""

import json
import shutil

import jax.numpy as jnp
import pytest
import saves_script
from processes import end, start_all
from test_damage import flip, largest

from mplug2_jax.checkpoints import Checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What two processes say, each of its own folder, by the case."""
    place, params = tmp_path_factory.mktemp("hosts"), saves_script.begin()
    digests = {}
    with Checkpoints(place / "0" / "shared", keep=2) as checkpoints:
        for step in (1, 2):
            params = saves_script.walk(params, step)
            digests[step] = saves_script.digest(params)
            checkpoints.save(step, {"params": params, "ema": {"text": {"bias": jnp.ones(2)}}},
                             {"model": {}}, {"text": 8 * step})
    for name in ("absent", "other", "lacking", "flipped"):
        shutil.copytree(place / "0" / "shared", place / "0" / name)
    (place / "0" / "inner" / "checkpoints").mkdir(parents=True)
    (place / "0" / "classes.txt").write_text("cat\ndog\n")
    shutil.copytree(place / "0", second := place / "1")
    shutil.rmtree(second / "absent" / "2")
    shutil.rmtree(second / "other")
    with Checkpoints(second / "other", keep=2) as checkpoints:
        checkpoints.save(2, {"params": params}, {"model": {}}, {})
    shutil.rmtree(second / "lacking" / "2" / "ema")
    path = largest(second / "flipped" / "2" / "params")
    flip(path, path.stat().st_size // 2)
    (second / "inner" / "checkpoints").rmdir()
    (second / "classes.txt").write_text("dog\ncat\n")
    outputs, codes = end(start_all("tests/agreed_script.py", place, devices=1), timeout=300)
    assert codes == [0, 0], outputs
    found = [dict(json.loads(line) for line in output.splitlines() if line.startswith('["'))
             for output in outputs]
    return digests, outputs, *found


def test_equal_disks_give_the_newest(answers):
    digests, _, one, two = answers
    assert one["shared"] == two["shared"] == [2, digests[2], True, ["ema", "params"], {"text": 16}]


@pytest.mark.parametrize("case, said", [("absent", "sees nothing where there is something for"),
                                        ("other", "sees something else than")])
def test_a_disk_with_other_checkpoints_ends_all_in_a_line(answers, case, said):
    *_, one, two = answers
    assert f"/0/{case}/2: process 1 (" in one[case] and said in one[case]
    assert one[case] == two[case].replace("/1/", "/0/")


def test_what_one_of_them_does_not_see_is_there_as_the_first_says(answers):
    *_, one, two = answers
    assert one["lacking"] == two["lacking"] and one["lacking"][2:4] == [True, ["ema", "params"]]
    assert one["inner"] == two["inner"] == "checkpoints"


def test_what_one_of_them_reads_damaged_is_rejected_by_all(answers):
    digests, outputs, one, two = answers
    assert one["flipped"] == two["flipped"] == [1, digests[1], True, ["ema", "params"],
                                                {"text": 8}]
    assert "is not what its checksum says" in outputs[0]


def test_files_of_a_config_that_differ_are_named(answers):
    *_, one, two = answers
    assert one["classes"] == two["classes"]
    assert one["classes"].startswith("files.task.classes is ")
