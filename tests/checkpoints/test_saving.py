"""Saves that are killed, refused or have no room: what counts is whole, and a line says why."""

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saves_script
from commands import ROOT, run, seen
from disks import small_disk
from forks import Fork

from mplug2_jax.checkpoints import CheckpointError, Checkpoints, manifest
from mplug2_jax.checkpoints.checksums import checksums
from mplug2_jax.checkpoints.choice import stored
from mplug2_jax.parallel.mesh import make_mesh

SCRIPT = "tests/saves_script.py"
NOBODY = 65534


def toy(folder, status=0, **flags):
    """The toy run's output."""
    return run(SCRIPT, folder, *(f"--{name}={value}" for name, value in flags.items()),
               status=status)


def error_of(output):
    """The one line that says what happened; no trace."""
    assert "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    return line


def steps_of(folder, keep=2, every=0, first=1, last=6):
    """The checkpoints that a folder keeps of a run of so many steps."""
    with Checkpoints(folder, keep, every) as checkpoints:
        for step in range(first, last + 1):
            checkpoints.save(step, {"params": {"text": {"kernel": jnp.full(3, step)}}},
                             {"model": {}}, {})
    return stored(folder)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The digests of a run that nothing interrupts, by step, and its last line."""
    params, digests = saves_script.begin(), {}
    for step in range(1, 9):
        params = saves_script.walk(params, step)
        digests[step] = saves_script.digest(params)
    output = toy(tmp_path_factory.mktemp("straight") / "run", steps=8)
    assert output.splitlines()[-1] == f"end {digests[8]}"
    return digests


def test_kills_inside_saves_leave_no_half_checkpoint(straight, tmp_path):
    """Each life is ended by SIGKILL; the next goes on from a step that is whole, to the same end.
    """
    folder, inside = tmp_path / "run", 0
    for most in (1_000, 30_000, 45_000, 61_000):
        process = Fork([SCRIPT, folder, "--steps=8", f"--killed_at={most}"], seen(path=ROOT))
        output = process.communicate(timeout=300)[0]
        assert process.returncode == -9, output
        inside += any(not path.name.isdigit() for path in folder.iterdir())
        for step, digest in re.findall(r"from (\d+) (\w+)", output):
            assert digest == straight[int(step)]
    assert inside >= 2
    assert toy(folder, steps=8).splitlines()[-1] == f"end {straight[8]}"
    assert sorted(path.name for path in folder.iterdir()) == ["7", "8"]  # what was half is gone


def test_parameters_that_are_not_finite_are_refused(straight, tmp_path):
    line = error_of(toy(tmp_path, status=2, steps=5, nan=4))
    assert "step 4: params text/kernel are not finite: it is not saved" in line
    assert "the newest good checkpoint is still step 3" in line
    assert stored(tmp_path) == [3, 2]
    assert f"from 3 {straight[3]}" in toy(tmp_path, steps=4)


def test_an_error_finishes_the_save_in_flight(straight, tmp_path):
    assert error_of(toy(tmp_path, status=2, steps=5, fail=2)) == (
        "error: a record that cannot be read")
    assert stored(tmp_path) == [2, 1]
    assert f"from 2 {straight[2]}" in toy(tmp_path, steps=3)


def test_a_full_disk_ends_the_run_in_a_line(straight, tmp_path):
    """For real: a disk in memory with room for two checkpoints and a half."""
    with small_disk(tmp_path / "disk", "320k") as disk:
        folder = disk / "run"
        line = error_of(toy(folder, status=2, steps=8, keep=8))
        step, newest = map(int, re.search(
            r"step (\d) could not be saved: .*; the newest good checkpoint is still step (\d)$",
            line).groups())
        assert "no space left" in line.lower() and newest == step - 1 >= 1
        assert stored(folder) == list(range(newest, 0, -1))
        # What was half written is gone; the older ones load.
        assert all(path.name.isdigit() for path in folder.iterdir())
        shutil.rmtree(folder / "1")  # the room that a person makes
        assert f"from {newest} {straight[newest]}" in toy(folder, steps=newest, keep=8)


def test_a_disk_that_fills_at_the_last_file_ends_the_run_in_a_line(tmp_path, monkeypatch):
    """By an injected error: the arrays found room, the manifest does not."""
    steps_of(tmp_path, last=2)

    def full(folder, arrays):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(CheckpointError, match="step 3 could not be saved: No space left on device; "
                                              "the newest good checkpoint is still step 2"):
        steps_of(tmp_path, first=3, last=4)
    monkeypatch.undo()
    assert Checkpoints(tmp_path).latest == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run as another user")
def test_a_folder_of_another_user_ends_the_run_in_a_line():
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # pytest's own folders are closed to others
        folder = Path(place) / "run"
        toy(folder, steps=1)
        line = error_of(toy(folder, status=2, steps=2, user=NOBODY))
        assert "step 2 could not be saved: " in line and "permission denied" in line.lower()
        assert line.endswith("the newest good checkpoint is still step 1")
        assert stored(folder) == [1] and Checkpoints(folder).latest == 1


def test_the_last_and_every_so_many_stay(tmp_path):
    assert steps_of(tmp_path / "a", keep=2) == [6, 5]
    assert steps_of(tmp_path / "b", keep=1, every=2) == [6, 4, 2]
    # Going on with other rules; a damaged one is never removed.
    (tmp_path / "b" / "4" / "manifest.json").unlink()
    assert steps_of(tmp_path / "b", keep=1, every=5, first=7, last=10) == [10]
    assert (tmp_path / "b" / "4.damaged").is_dir()


def test_a_number_is_saved_once(tmp_path):
    steps_of(tmp_path, last=1)
    with pytest.raises(CheckpointError, match="1 is there already"):
        steps_of(tmp_path, last=1)
    with pytest.raises(CheckpointError, match="open for reading"):
        Checkpoints(tmp_path).save(2, {}, {}, {})


def test_checksums_do_not_hang_on_where_arrays_are():
    """On devices, by the program that accelerators run, and on the host; every bit counts."""
    draw = np.random.default_rng(0)
    host = {name: draw.integers(0, 256, shape + (np.dtype(dtype).itemsize,), np.uint8).view(dtype)
            .reshape(shape) for name, dtype, shape in (
                ("a", np.float32, (16, 24)), ("b", jnp.bfloat16, (8, 3)), ("c", np.int32, ()),
                ("d", np.uint8, (5,)), ("e", np.int32, (0, 3)))} | {"f": draw.random(9) > 0.5}
    wanted = checksums(host)
    module = __import__("mplug2_jax.checkpoints.checksums", fromlist=["_"])
    mesh = make_mesh(2, 2, 2)
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp", "tensor"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    placed = {name: jax.device_put(x, sharded if x.shape == (16, 24) else everywhere)
              for name, x in host.items()}
    assert checksums(placed) == wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_of_this_host", lambda x: False)
        assert checksums(placed) == wanted
    for name, x in host.items():
        for place in range(0, x.nbytes, 7):
            other = bytearray(x.tobytes())
            other[place] ^= 1
            changed = np.frombuffer(bytes(other), x.dtype).reshape(x.shape)
            assert checksums({name: changed})[name].value != wanted[name].value
    assert not checksums({"x": jnp.array([1.0, jnp.inf])})["x"].finite
