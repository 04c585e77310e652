"""Local checkpoints: what is taken is whole, of this run, and bit for bit what was saved."""

import errno
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from disks import small_disk
from jax.sharding import NamedSharding, PartitionSpec

from mplug2_jax.checkpoints import LocalCheckpoints, manifest, parts
from mplug2_jax.checkpoints.choice import stored
from mplug2_jax.parallel.copies import completed, covered, needed, placed
from mplug2_jax.parallel.mesh import make_mesh

SIZES = (2, 2, 2)


def items(step, mesh):
    """Arrays of all kinds, spread over some axes of the mesh and copied over others."""
    draw = np.random.default_rng(step)
    trees = {"params": {"mlp": {"wi": {"kernel": draw.normal(size=(8, 6)).astype(np.float32)}},
                        "scale": draw.normal(size=3).astype(jnp.bfloat16)},
             "rest": (np.int32(step), {"none": np.zeros((0, 4), np.float32)},
                      draw.random(5) > 0.5),
             "guard": {"skipped": np.int32(step)}}
    specs = {(8, 6): PartitionSpec("fsdp", "tensor")}
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(
        mesh, specs.get(x.shape, PartitionSpec()))), trees)


def shapes_of(trees):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trees)


class Run:
    """A run of one process with its folders; `write` and `taken` are lives that are killed."""

    def __init__(self, place, folder=None):
        self.workdir, self.folder = place / "run", folder or place / "disk"
        (self.workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.mesh = make_mesh(*SIZES)

    def open(self):
        return LocalCheckpoints(self.workdir, str(self.folder), 2)

    def write(self, *steps, local=None):
        """Saves after each of these steps; gives the own folder of the host."""
        local = local or self.open()
        local.first_good(None, shapes_of(items(0, self.mesh)), self.mesh,
                         lambda: local.restore(shapes_of(items(0, self.mesh)), self.mesh))
        local.__enter__()
        for step in steps:
            assert local.due(step), step
            local.save(step, items(step, self.mesh), {"model": {}}, {"video": 8 * step})
            local._pending.result()
        return local.folder

    def taken(self, above=None, mesh=None, change=lambda shapes: shapes):
        """The step that is gone on from, whose arrays and data are those of that step, or None."""
        local, mesh = self.open(), mesh or self.mesh
        shapes = change(shapes_of(items(0, mesh)))
        found = local.first_good(above, shapes, mesh, lambda: (
            local.meta(), local.restore(shapes, mesh)))
        assert (found is None) == (local.latest is None)
        if found is not None:
            wanted = items(local.latest, mesh)
            assert found[0]["step"] == local.latest
            assert found[0]["samples"] == {"video": 8 * local.latest}
            assert jax.tree.structure(found[1]) == jax.tree.structure(wanted)
            for x, y in zip(jax.tree.leaves(found[1]), jax.tree.leaves(wanted), strict=True):
                assert x.dtype == y.dtype and x.sharding.is_equivalent_to(y.sharding, x.ndim)
                assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
        return local.latest


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_the_newest_is_taken_bit_for_bit_where_it_is_newer_than_a_shared_one(run):
    own = run.write(2, 4, 6)
    assert stored(own) == [6, 4]  # the last that is whole on all hosts, and the one after it
    assert run.taken() == run.taken(above=5) == 6
    assert run.taken(above=6) is None
    assert run.write(8) == own and stored(own) == [8, 6]


def test_a_damaged_part_is_passed_over_and_told(run, caplog):
    own = run.write(2, 4)
    data = own / "4" / "shards" / "d" / "0"
    for place in (0, data.stat().st_size // 2, -1):
        flip(data, place)
        assert run.taken() == 2 and "host-0: " in caplog.text
        assert "is not what its checksum says; it is not used" in caplog.text
        flip(data, place)
    assert run.taken() == 4
    shutil.copytree(own, own.with_name("whole"))
    for name in ("manifest.json", "meta/metadata", "shards/index.json", "shards/d/0"):
        for damage in (flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"")):
            shutil.rmtree(own)
            shutil.copytree(own.with_name("whole"), own)
            damage(own / "4" / name)
            assert run.taken() == 2, name
            damage(own / "2" / name)
            assert run.taken() is None, name


def test_what_was_copied_wrongly_is_passed_over(run, monkeypatch, caplog):
    """As memory does that loses a bit: the file is as it was written, and not what it should be."""
    run.write(2)
    copied = parts.copied

    def wrongly(items):
        found = copied(items)
        (shard,) = found["params/scale"].shards.values()
        shard.view(np.uint8)[0] ^= 1
        return found

    monkeypatch.setattr(parts, "copied", wrongly)
    run.write(4)
    assert run.taken() == 2
    assert "params: scale is not what its checksum says; it is not used" in caplog.text


def test_what_is_not_finished_is_no_checkpoint(run):
    own = run.write(2, 4)
    (own / "4").rename(own / "4.saving")
    assert run.taken() == 2 and [path.name for path in own.iterdir()] == ["2"]


def test_steps_that_come_again_are_removed(run):
    """A shared checkpoint, or an older local one, was gone on from."""
    own = run.write(2, 4)
    flip(own / "4" / "shards" / "d" / "0")
    assert run.write() == own and stored(own) == [2]


@pytest.mark.parametrize("sizes", [(1, 8, 1), (1, 4, 2), (8, 1, 1)])
def test_another_mesh_is_passed_over(run, sizes, caplog):
    run.write(2)
    assert run.taken(mesh=make_mesh(*sizes)) is None
    assert caplog.text.count("is of another mesh or of other arrays: it is not used") == 1


def test_other_arrays_are_passed_over(run):
    run.write(2)
    for change in (lambda shapes: shapes | {"ema": shapes["params"]},
                   lambda shapes: {"params": shapes["params"]},
                   lambda shapes: shapes | {"guard": {
                       "skipped": jax.ShapeDtypeStruct((1,), jnp.int32)}},
                   lambda shapes: shapes | {"guard": {
                       "skipped": jax.ShapeDtypeStruct((), jnp.float32)}}):
        assert run.taken(change=change) is None
    assert run.taken() == 2


def test_another_run_is_never_taken(run, tmp_path):
    """One of another work folder, one that begins anew in this one, and this one without them."""
    own = run.write(2)
    other = Run(tmp_path / "other", run.folder)
    assert other.taken() is None
    other.write(4)
    assert run.taken() == 2 and other.taken() == 4
    shutil.move(run.workdir / "checkpoints", tmp_path / "away")
    (run.workdir / "checkpoints").mkdir()
    assert run.taken() is None
    shutil.rmtree(run.workdir / "checkpoints")
    shutil.move(tmp_path / "away", run.workdir / "checkpoints")
    assert run.taken() == 2
    shutil.copytree(run.workdir, tmp_path / "copy" / "run")  # to go on in another way
    assert Run(tmp_path / "copy", run.folder).taken() is None and run.taken() == 2
    with LocalCheckpoints(run.workdir, None, 2) as none:
        assert none.first_good(None, {}, run.mesh, lambda: 1) is None and not none.due(2)
    assert run.taken() is None and own.is_dir()


def test_a_good_end_leaves_nothing_and_an_error_all(run):
    with pytest.raises(ValueError), run.open() as local:
        run.write(2, local=local)
        raise ValueError
    assert run.taken() == 2
    (run.workdir / "checkpoints" / "3").mkdir()  # a shared one
    with run.open() as local:
        run.write(4, local=local)
    assert run.taken() == 4
    (run.workdir / "checkpoints" / "5").mkdir()
    with run.open():
        pass
    assert list(run.folder.iterdir()) == []


def test_a_save_that_is_not_over_is_not_followed_by_another(run, monkeypatch, caplog):
    go_on, write = threading.Event(), parts.write

    def slow(*arguments):
        assert go_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(parts, "write", slow)
    local = run.open()
    assert not local.due(1) and local.due(2)
    state = items(2, run.mesh)
    local.save(2, state, {"model": {}}, {"video": 16})
    jax.tree.map(lambda x: x.delete(), state)  # a step writes over what it was given
    assert not local.due(4) and not local.due(6)
    assert caplog.text.count("no local checkpoint of step 4") == 1 and "step 6" not in caplog.text
    go_on.set()
    local._pending.result()
    assert local.due(8) and run.taken() == 2


def test_parameters_that_are_not_finite_are_refused(run):
    local = run.open()
    run.write(2, local=local)
    lost = items(4, run.mesh)
    lost["params"]["scale"] = lost["params"]["scale"].at[1].set(jnp.nan)
    assert local.due(4)
    with pytest.raises(FloatingPointError, match="step 4: params scale are not finite: it is not "
                                                 "saved, the newest local checkpoint is still st"):
        local.save(4, lost, {}, {})
    assert run.taken() == 2


def full(run, local, caplog):
    """The save of step 4 finds no room: then there are no more, and nothing else happens."""
    local.save(4, items(4, run.mesh), {"model": {}}, {"video": 32})
    with pytest.raises(OSError):
        local._pending.result()
    assert not local.due(6) and not local.due(8)
    assert "host-0: step 4 could not be saved: No space left on device" in caplog.text
    assert caplog.text.count("training goes on without them") == 1
    assert [path.name for path in local.folder.iterdir()] == ["2"]
    assert run.taken() == 2


def test_a_full_disk_ends_them_alone(tmp_path, caplog):
    """For real: a disk in memory with room for one."""
    with small_disk(tmp_path / "small", "80k") as disk:
        run = Run(tmp_path, disk)
        local = run.open()
        run.write(2, local=local)
        assert local.due(4)
        with open(disk / "more", "wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        full(run, local, caplog)


def test_a_disk_that_fills_at_the_last_file_ends_them_alone(run, monkeypatch, caplog):
    """By an injected error: the shards found room, the manifest does not."""
    local = run.open()
    run.write(2, local=local)

    def no_room(folder, arrays):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    assert local.due(4)
    monkeypatch.setattr(manifest, "write", no_room)
    full(run, local, caplog)
    with local:
        pass  # nor does the end of the run


@pytest.mark.parametrize("dtype, spec", [
    (np.float32, PartitionSpec("fsdp", "tensor")), (jnp.bfloat16, PartitionSpec(None, "tensor")),
    (np.int32, PartitionSpec(("data", "fsdp"))), (np.uint8, PartitionSpec()),
    (np.bool_, PartitionSpec("data"))])
def test_what_some_devices_lack_comes_from_copies(dtype, spec):
    """Of each set of devices that may have lost theirs: the array, or word that it is not whole."""
    sharding = NamedSharding(make_mesh(*SIZES), spec)
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (4, 6, np.dtype(dtype).itemsize), np.uint8)
    x = x[..., 0] > 127 if dtype is np.bool_ else x.view(dtype)[..., 0]
    shards = {part: x[tuple(slice(*one) for one in part)]
              for part in needed(sharding, x.shape).values()}
    assert_same(placed(shards, x.shape, sharding), x, sharding)
    devices = sharding.mesh.devices
    for lost in map(frozenset, (devices[0].flat, devices[1, 0].flat, devices[:, 1, 1].flat)):
        has = [device for device in devices.flat if device not in lost].__contains__
        there = {part for device, part in needed(sharding, x.shape).items() if has(device)}
        assert covered([sharding], has) == (there == shards.keys())
        if there == shards.keys():
            assert_same(completed(shards, x.shape, dtype, sharding, has), x, sharding)


def assert_same(found, x, sharding):
    assert found.dtype == x.dtype and found.sharding == sharding
    for shard in found.addressable_shards:
        assert np.asarray(shard.data).tobytes() == x[shard.index].tobytes()
