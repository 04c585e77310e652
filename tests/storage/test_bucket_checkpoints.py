"""Checkpoints in a bucket: whole ones count, whenever a save or a removal ends midway."""

import json
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saves_script
from commands import ROOT, run, seen
from forks import Fork

from mplug2_jax.checkpoints import Checkpoints, manifest, open_which, write_params
from mplug2_jax.checkpoints.errors import CheckpointError
from mplug2_jax.checkpoints.folders import clean, stored
from mplug2_jax.contracts import paths
from mplug2_jax.parallel.mesh import make_mesh


def save(folder, *steps, keep=2):
    """Saves arrays that are full of the step's number."""
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"params": {"text": {"kernel": jnp.full((40, 30), step)}}},
                             {"model": {}}, {})


def read(checkpoints):
    """The arrays of the newest that can be read, which are full of one number."""
    shapes = {"params": checkpoints.shapes()}
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    x = checkpoints.restore(shapes, mesh)["params"]["text"]["kernel"]
    assert x.shape == (40, 30) and len(np.unique(x)) == 1
    return int(x[0, 0])


def names(server, place):
    """What lies directly in a folder."""
    start = len(place.removeprefix("gs://bucket/")) + 1
    return {name[start:].partition("/")[0] for name in server.objects
            if name.startswith(place.removeprefix("gs://bucket/") + "/")}


def test_the_newest_stay_and_nothing_else(server, place):
    save(place, *range(1, 6))
    assert names(server, place) == {"4", "5"} == {str(n) for n in stored(paths.parse(place))}
    with open_which(place, "last") as checkpoints:
        assert checkpoints.latest == 5 and read(checkpoints) == 5
        assert str(checkpoints.path) == f"{place}/5"
    assert not any("/rewriteTo/" in one.path for one in server.requests)  # nothing is copied


def test_a_save_that_ends_at_any_request_leaves_whole_checkpoints(server, place):
    """What is in the bucket before each change of a save and of the removal after it."""
    save(place, 1, 2)
    states = []
    server.before = lambda method, name: states.append(dict(server.objects))
    save(place, 3)
    server.before = lambda method, name: None
    states.append(dict(server.objects))
    assert len(states) > 20
    folder, seen_first = paths.parse(place), []
    for state in states:
        server.objects = dict(state)
        numbers = stored(folder)
        assert not any(manifest.damage(folder / str(number)) for number in numbers)
        seen_first.append(numbers[0])
        with Checkpoints(place) as checkpoints:
            assert checkpoints.latest == numbers[0]
        clean(folder)  # as the next start does
        assert stored(folder) == numbers
        assert names(server, place) == {str(number) for number in numbers}
    assert seen_first == sorted(seen_first) and {*seen_first} == {2, 3}
    server.objects = states[-4]
    with Checkpoints(place, keep=2) as checkpoints:
        assert read(checkpoints) == 3


@pytest.mark.slow
def test_kills_inside_saves_leave_no_half_checkpoint(server, place):
    """Each life is ended by SIGKILL at a change of the bucket; the next goes on to the same end."""
    params, digests = saves_script.begin(), {}
    for step in range(1, 9):
        params = saves_script.walk(params, step)
        digests[step] = saves_script.digest(params)
    inside = 0
    for last in (30, 110):
        process, left = Fork(["tests/saves_script.py", place, "--steps=8"], seen(path=ROOT)), [last]

        def end(method, name, process=process, left=left):
            left[0] -= 1
            if not left[0]:
                os.kill(process.pid, signal.SIGKILL)
                raise PermissionError

        server.before = end
        output = process.communicate(timeout=300)[0]
        server.before = lambda method, name: None
        assert process.returncode == -9, output
        inside += any(not name.isdigit() for name in names(server, place))
        for step, digest in re.findall(r"from (\d+) (\w+)", output):
            assert digest == digests[int(step)]
    assert inside >= 1
    output = run("tests/saves_script.py", place, "--steps=8")
    assert output.splitlines()[-1] == f"end {digests[8]}"
    assert names(server, place) == {"7", "8"}


def test_a_damaged_one_is_set_aside(server, place, caplog):
    save(place, 1, 2)
    prefix = f"{place.removeprefix('gs://bucket/')}/2/params/"
    for name in server.below(prefix + "d/"):
        content = bytearray(server.objects[name].content)
        content[len(content) // 2] ^= 1
        server.put(name, content)
    with Checkpoints(place, keep=2) as checkpoints:
        assert checkpoints.first_good(lambda: read(checkpoints)) == 1
    assert names(server, place) == {"1", "2.damaged"} and "is damaged" in caplog.text
    server.objects.pop(server.below(prefix.replace("/2/", "/1/") + "d/")[0])
    with pytest.raises(CheckpointError, match=r"all its checkpoints are damaged .*No such file"):
        Checkpoints(place)


def test_what_is_not_of_a_killed_save_stays(server, place):
    """Checkpoints from before there were manifests, copied there, are older than the mark."""
    server.put(f"{place.removeprefix('gs://bucket/')}/7/meta/metadata", json.dumps({
        "format": 2, "step": 7}).encode())
    clean(paths.parse(place))
    assert stored(paths.parse(place)) == [7] and Checkpoints(place).meta()["step"] == 7


def test_a_folder_is_no_mark(server, place, tmp_path):
    """What a run on a disk left half and was copied with it; and marks that were copied to a disk.
    """
    save(place, 6, 7, keep=2)
    folder, found = paths.parse(place), {}
    for name in ("7.saving", "7.removing", "6.saving.orbax-checkpoint-tmp",
                 "6.orbax-checkpoint-tmp-3"):
        (folder / name / "meta" / "metadata").write_text("{}")
    server.put(f"{folder.name}/notes.saving", b"a person's")
    server.put(f"{folder.name}/notes/1", b"")
    assert stored(folder) == [7, 6]
    clean(folder)
    assert names(server, place) == {"6", "7", "notes.saving", "notes"} and stored(folder) == [7, 6]
    (folder / "8" / "params").write_text("half")
    (folder / "8.saving").write_text("")
    (folder / "6.removing").write_text("")
    for name in paths.sizes(folder):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).download(tmp_path / name)
    for one in (folder, tmp_path):
        found[one] = stored(one), clean(one), sorted(path.name for path in one.iterdir())
    assert found[folder] == found[tmp_path] == ([7], None, ["7", "notes", "notes.saving"])
    with Checkpoints(tmp_path) as checkpoints:
        assert read(checkpoints) == 7


def test_a_store_that_refuses_says_nothing_of_checkpoints(server, place, monkeypatch):
    save(place, 1, 2)

    def refuse(method, name):
        raise PermissionError

    server.reading = refuse
    with pytest.raises(OSError, match="Forbidden"):
        Checkpoints(place)
    server.reading = lambda method, name: None
    with Checkpoints(place, keep=2) as checkpoints:
        server.reading = lambda method, name: "/params/d/" in name and refuse(method, name)
        with pytest.raises(CheckpointError, match="2: params cannot be read: PERMISSION_DENIED"):
            checkpoints.first_good(lambda: read(checkpoints))
        server.reading = lambda method, name: None
        server.before = refuse
        with pytest.raises(CheckpointError, match="step 3 could not be saved: .*; the newest good "
                                                  "checkpoint is still step 2"):
            checkpoints.save(3, {"params": {"a": jnp.ones(2)}}, {"model": {}}, {})
            checkpoints.wait()
        server.before = lambda method, name: None
    assert names(server, place) == {"1", "2"}


@pytest.mark.parametrize("refused", ["DELETE", "GET"])
def test_a_save_that_fails_leaves_its_mark(server, place, refused):
    """Its arrays, or those of others that still write, may come or stay after it was given up."""
    save(place, 1, 2)
    failed = []

    def refuse(method, name):
        if failed and method == refused:
            raise PermissionError

    def fail(method, name):
        if name.endswith("/3/manifest.json"):
            failed.append(name)
            raise PermissionError
        refuse(method, name)

    server.before, server.reading = fail, refuse
    checkpoints = Checkpoints(place, keep=2)
    checkpoints.save(3, {"params": {"a": jnp.ones(2)}}, {"model": {}}, {})
    with pytest.raises(CheckpointError, match="step 3 could not be saved: .*still step 2"):
        checkpoints.wait()
    server.before = server.reading = lambda method, name: None
    late = f"{place.removeprefix('gs://bucket/')}/3/params/late"
    checkpoints.close()
    server.put(late, b"of another host")
    assert names(server, place) == {"1", "2", "3", "3.saving"}
    assert stored(paths.parse(place)) == [2, 1]
    with Checkpoints(place, keep=2) as checkpoints:
        assert checkpoints.latest == 2
    assert names(server, place) == {"1", "2"}


def test_a_start_is_written_for_others(server, place):
    (paths.parse(place) / "0" / "half").write_text("of one that was killed")
    (paths.parse(place) / "0.saving").write_text("")
    write_params(place, {"text": {"kernel": np.full((40, 30), 7.0, np.float32)}}, {"model": {}})
    assert names(server, place) == {"0"} and not (paths.parse(place) / "0" / "half").exists()
    with Checkpoints(place) as checkpoints:
        assert read(checkpoints) == 7
    with pytest.raises(CheckpointError, match="already holds a checkpoint"):
        write_params(place, {"text": {"kernel": np.zeros(2)}}, {"model": {}})
