"""The mesh: what fits the devices, how they stand in it, and which process feeds which rows."""

import types

import numpy as np
import pytest

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.parallel import mesh as meshes
from mplug2_jax.parallel.mesh import arrange, check_batch, make_mesh, part_of, put_batch


def test_the_mesh_must_fit_the_devices_and_the_batch():
    assert dict(make_mesh(2, 2, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert make_mesh(2, -1, 1).shape["fsdp"] == 4
    for wrong in ((3, 1, 1), (3, -1, 1), (-1, -1, 1), (0, -1, 1)):
        with pytest.raises(ConfigError, match="mesh = .* expected a product of 8"):
            make_mesh(*wrong)
    with pytest.raises(ConfigError, match="video.batch_size = 6: expected a multiple of 4"):
        check_batch("video.batch_size", 6, make_mesh(2, 2, 2))
    with pytest.raises(ConfigError, match="multiple of 8, .* times task.accumulation = 2"):
        check_batch("video.batch_size", 12, make_mesh(2, 2, 2), 2, "task.accumulation")


def device(number, slice_index=0, platform="cpu"):
    return types.SimpleNamespace(id=number, slice_index=slice_index, platform=platform,
                                 device_kind="none")


def test_data_is_the_axis_that_crosses_slices():
    devices = [device(i, slice_index=i % 2) for i in range(8)]  # in no helpful order
    for shape in ((2, 2, 2), (4, 2, 1), (2, 1, 4)):
        placed = arrange(shape, devices)
        assert placed.shape == shape
        for half, slice_index in zip(np.split(placed, 2), (0, 1), strict=True):
            assert {d.slice_index for d in half.flat} == {slice_index}
        assert len({d.id for d in placed.flat}) == 8
    # GPU hosts are slices too: where `data` cannot, `fsdp` crosses them, host by host.
    hosts = [device(i, slice_index=i // 4) for i in (4, 5, 6, 7, 0, 1, 2, 3)]
    assert [d.id for d in arrange((1, 8, 1), hosts).flat] == list(range(8))
    slices = [device(i, slice_index=i // 4, platform="tpu") for i in range(8)]
    with pytest.raises(ConfigError, match="mesh.data = 1: expected a multiple of 2, the number of"):
        arrange((1, 8, 1), slices)


@pytest.mark.parametrize("parts, expected", [
    ([[0, 0], [0, 0], [1, 1], [1, 1]], [(0, 2), (1, 2)]),
    ([[1], [0], [1], [0]], [(1, 2), (0, 2)]),  # by where the devices stand, not by number
    ([[0, 1], [0, 1]], [(0, 1), (0, 1)]),  # `tensor` crosses processes: the same rows
    ([[0, 1], [0, 1], [2, 3], [2, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),
])
def test_processes_feed_the_rows_that_their_devices_hold(parts, expected):
    found = [part_of(process, np.array(parts)) for process in range(len(expected))]
    assert found == expected


def test_rows_that_processes_share_in_part_are_refused():
    with pytest.raises(ConfigError, match="mesh.tensor"):
        part_of(0, np.array([[0, 0], [0, 1], [1, 1]]))


def test_what_a_process_feeds_is_found_once_not_for_every_batch(monkeypatch):
    asked = []
    monkeypatch.setattr(meshes, "part_of", lambda *given: (asked.append(given), part_of(*given))[1])
    meshes.data_slice.cache_clear()
    mesh, batch = make_mesh(4, 2, 1), {"x": np.arange(16)}
    for _ in range(3):
        assert (np.asarray(put_batch(batch, mesh)["x"]) == batch["x"]).all()
    assert len(asked) == 1
