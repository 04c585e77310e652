"""What is damaged is seen, named and not used; the newest good checkpoint is."""

import json
import random
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import saves_script

from mplug2_jax.checkpoints import CheckpointError, Checkpoints, write_params
from mplug2_jax.checkpoints.choice import stored

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
saves = __import__("saves")
NEWEST = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of steps 1, 2 and 3 of the toy run, and the parameters of each."""
    folder = tmp_path_factory.mktemp("whole")
    params, states = saves_script.begin(), {}
    with Checkpoints(folder, keep=NEWEST) as checkpoints:
        for step in range(1, NEWEST + 1):
            states[step] = params = saves_script.walk(params, step)
            checkpoints.save(step, {"params": params}, {"model": {}}, {"video": 8 * step})
    return folder, jax.device_get(states)


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole[0], tmp_path / "checkpoints")


def taken(folder, states, keep=0):
    """The step that is gone on from, whose arrays are bit for bit those that were saved."""
    with Checkpoints(folder, keep) as checkpoints:
        params = checkpoints.first_good(lambda: saves_script.restored(checkpoints))
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(params),
                     states[checkpoints.latest])
        return checkpoints.latest


def flip(path, place, bit=0):
    """Another bit at a place of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def largest(folder):
    """The file that has most of the arrays."""
    return max((path for path in folder.rglob("*") if path.is_file()),
               key=lambda path: path.stat().st_size)


def test_the_newest_is_taken_where_nothing_is_damaged(whole):
    assert taken(*whole) == NEWEST


def test_a_flipped_byte_is_never_restored(whole, folder):
    """At random places of all files; a change may be of nothing that is read."""
    files = [path for path in (folder / str(NEWEST)).rglob("*") if path.is_file()]
    draw, seen = random.Random(0), 0
    for path in draw.choices(files, [path.stat().st_size for path in files], k=24):
        content = path.read_bytes()
        flip(path, draw.randrange(len(content)), draw.randrange(8))
        seen += taken(folder, whole[1]) != NEWEST
        path.write_bytes(content)
    assert seen >= 20


def test_a_flipped_byte_of_an_array_is_named(whole, folder, caplog):
    path = largest(folder / str(NEWEST))
    flip(path, path.stat().st_size // 2)
    assert taken(folder, whole[1], keep=2) == NEWEST - 1
    (line,) = [line for line in map(str, caplog.messages) if "damaged" in line]
    assert line.startswith(f"{folder}/{NEWEST} is damaged and not used: params")
    assert "kernel" in line and "\n" not in line
    # It was set aside: its number is free for the step that comes again.
    assert stored(folder) == [2, 1] and (folder / f"{NEWEST}.damaged" / "params").is_dir()
    assert taken(folder, whole[1], keep=2) == NEWEST - 1


def spoil(name, folder):
    """A checkpoint's folder, damaged; what a message of it says."""
    if name == "missing array file":
        path = largest(folder)
        path.unlink()
        return f"{path.relative_to(folder)}: no such file"
    if name == "short array file":
        path = largest(folder)
        path.write_bytes(path.read_bytes()[:-1])
        return f"{path.relative_to(folder)} has "
    if name == "missing item":
        shutil.rmtree(folder / "params")
        return "params/_METADATA: no such file"
    if name == "changed meta":
        flip(folder / "meta" / "metadata", 40)
        return "meta/metadata is not as it was written"
    manifest = folder / "manifest.json"
    if name == "missing manifest":
        manifest.unlink()
        return "manifest.json is missing"
    if name == "truncated manifest":
        manifest.write_text(manifest.read_text()[:200])
        return "manifest.json cannot be read"
    flip(manifest, manifest.read_text().index("float32") + 12)
    return "manifest.json"


@pytest.mark.parametrize("name", [
    "missing array file", "short array file", "missing item", "changed meta", "missing manifest",
    "truncated manifest", "changed manifest"])
def test_what_is_wrong_with_files_is_seen_at_once(name, whole, folder, caplog):
    said = spoil(name, folder / str(NEWEST))
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest == NEWEST - 1
    assert f"{folder}/{NEWEST} is damaged and not used: {said}" in caplog.text.lower().replace(
        "_metadata", "_METADATA")
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]  # a reader moves none
    assert taken(folder, whole[1]) == NEWEST - 1


def test_where_none_is_good_the_run_does_not_begin_anew(whole, folder):
    for step in stored(folder):
        spoil("truncated manifest", folder / str(step))
    for keep in (0, 2, 2):  # again, too
        with pytest.raises(CheckpointError, match="all its checkpoints are damaged .3: manifest"):
            Checkpoints(folder, keep)
    # Also where a reader finds it, late.
    shutil.rmtree(folder)
    shutil.copytree(whole[0], folder)
    for step in stored(folder):
        path = largest(folder / str(step))
        flip(path, path.stat().st_size // 2)
    for step in (3, 2):
        (folder / str(step)).rename(folder / f"{step}.damaged")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="all its checkpoints are damaged .1: params"):
            taken(folder, whole[1], keep=2)
    (folder / "1").rename(folder / "1.damaged")
    with pytest.raises(CheckpointError, match="all its checkpoints are damaged .1.damaged is one"):
        Checkpoints(folder, keep=2)


def test_a_checkpoint_older_than_manifests_is_taken(whole, folder):
    for step in stored(folder):
        (folder / str(step) / "manifest.json").unlink()
        path = folder / str(step) / "meta" / "metadata"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    assert taken(folder, whole[1]) == NEWEST
    (folder / str(NEWEST) / "meta" / "metadata").write_text('{"step": 3, "for')
    assert taken(folder, whole[1]) == NEWEST - 1


def test_a_start_has_checksums_too(tmp_path):
    """What `convert` writes is of the host, and read by devices."""
    draw = np.random.default_rng(0)
    params = {"text": {"kernel": draw.normal(size=(64, 32)).astype(np.float32),
                       "half": draw.normal(size=7).astype(jax.numpy.bfloat16)}}
    write_params(tmp_path / "start", params, {"model": {}})
    mesh = saves_script.make_mesh(1, -1, 1)
    source = Checkpoints(tmp_path / "start")
    found = source.load_params(source.shapes(), mesh)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), params)
    path = largest(tmp_path / "start" / "0")
    flip(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="start/0 is damaged: params"):
        Checkpoints(tmp_path / "start").load_params(source.shapes(), mesh)
    with pytest.raises(CheckpointError, match="already holds a checkpoint"):
        write_params(tmp_path / "start", params, {"model": {}})


def test_no_flipped_bit_of_any_file_is_restored_as_other_numbers(tmp_path):
    """Some of `make torture`."""
    found = saves.flips(tmp_path, count=60)
    assert found["flipped"] == 60 and found["wrong"] == 0 and found["rejected"] > 45, found


def test_damage_that_orbax_tells_by_an_error_of_its_own_is_damage(whole, folder, monkeypatch):
    """As it does of one flipped bit in some hundreds: by a bare one, with the reason as its cause.
    """
    real = ocp.PyTreeCheckpointHandler.restore

    def restore(self, directory, *args, **kwargs):
        if directory.parent.name == str(NEWEST):
            try:
                raise ValueError("ZSTD_decompressStream() failed")
            except ValueError as error:
                raise Exception("while reading array index") from error
        return real(self, directory, *args, **kwargs)

    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "restore", restore)
    assert taken(folder, whole[1]) == NEWEST - 1
