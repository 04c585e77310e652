"""Rows of an evaluation, in memory and in a file."""

import errno
import io

import jax.numpy as jnp
import numpy as np
import pytest

from mplug2_jax.tasks.base import rows as module
from mplug2_jax.tasks.base.rows import Rows


@pytest.mark.parametrize("memory", [0, 100, 1 << 28])  # in a file at once, later, never
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, bool])
def test_what_is_appended_is_read(memory, dtype, monkeypatch):
    monkeypatch.setattr(module, "MEMORY", memory)
    rng, rows, parts = np.random.default_rng(0), Rows(), []
    for count in (3, 1, 0, 5, 2):
        parts.append(rng.integers(0, 2, (count, 2, 7)).astype(dtype))
        rows.append(parts[-1])
        whole = np.concatenate(parts)
        assert len(rows) == len(whole) and rows.array().dtype == whole.dtype
        np.testing.assert_array_equal(rows.array(), whole)
    assert isinstance(rows.array(), np.memmap) == (memory < 1000)
    for numbers in ([4, 0, 4], np.array([10]), slice(2, 5)):
        np.testing.assert_array_equal(rows[numbers], whole[numbers])


def test_rows_out_of_order_in_memory_are_taken(monkeypatch):
    rows = Rows()
    rows.append(np.arange(12.0).reshape(3, 4).T)  # not contiguous
    monkeypatch.setattr(module, "MEMORY", 0)
    rows.append(np.zeros((1, 3)))
    np.testing.assert_array_equal(rows[1], [1, 5, 9])


def test_a_full_disk_is_said_with_the_size_and_the_place(monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "MEMORY", 0)
    monkeypatch.setattr(module.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(OSError, match="0.5 GiB .* No space left on device; name a larger .*TMPDIR"):
        Rows().append(np.zeros((1 << 15, 1 << 12), np.float32))
