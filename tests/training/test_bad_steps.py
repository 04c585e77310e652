"""Steps that changed nothing are written down, and end a run where they do not stop."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mplug2_jax.training.bad_steps import BAD_STEPS, BadSteps, TooManyBadSteps


def metrics(in_a_row, loss=1.0, norm=2.0):
    return {"loss": jnp.float32(loss), "grad_norm": jnp.float32(norm),
            "skipped_in_a_row": jnp.int32(in_a_row)}


def batch(step):
    ids = np.arange(4) + 10 * step
    return {"video": {"pair_id": jnp.asarray(ids), "text": jnp.zeros((4, 3))},
            "text": {"text": jnp.zeros((4, 3))}}


def lines(folder):
    path = folder / BAD_STEPS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def named(stream, ids):
    return [f"{stream}:{number}" for number in ids]


def test_a_bad_step_is_written_with_its_records_once_it_is_done(tmp_path):
    bad = BadSteps(tmp_path, 0, 5, named)
    for step, in_a_row in enumerate([0, 1, 2, 0, 0], 1):
        bad.count(step, metrics(in_a_row, np.nan if in_a_row == 1 else 3.0), batch(step))
        bad.settle(ahead=2)
        assert [line["step"] for line in lines(tmp_path)] == [2, 3][:max(0, step - 3)]
    bad.settle()
    assert lines(tmp_path) == [
        {"step": 2, "skipped_in_a_row": 1, "loss": "nan", "grad_norm": 2.0,
         "records": {"video": ["video:20", "video:21", "video:22", "video:23"]}},
        {"step": 3, "skipped_in_a_row": 2, "loss": 3.0, "grad_norm": 2.0,
         "records": {"video": ["video:30", "video:31", "video:32", "video:33"]}}]


def test_a_run_without_bad_steps_writes_nothing(tmp_path):
    bad = BadSteps(tmp_path, 0, 5, named)
    bad.count(1, metrics(0), batch(1))
    bad.settle()
    assert list(tmp_path.iterdir()) == []


def test_too_many_in_a_row_end_the_run_and_name_the_first(tmp_path):
    bad = BadSteps(tmp_path, 6, 2, named)
    for step, in_a_row in ((7, 1), (8, 2), (9, 3)):
        bad.count(step, metrics(in_a_row), batch(step))
    with pytest.raises(TooManyBadSteps, match=r"step 9: the last 3 steps .*--replay=7"):
        bad.settle()
    assert [line["step"] for line in lines(tmp_path)] == [7, 8, 9]


def test_steps_that_come_again_are_written_once(tmp_path):
    for start in (0, 4):
        bad = BadSteps(tmp_path, start, 5, named)
        for step in (5, 6):
            bad.count(step, metrics(step - 4), batch(step))
        bad.settle()
    assert [line["step"] for line in lines(tmp_path)] == [5, 6]


def test_rows_of_sharded_ids_come_in_order_and_once(tmp_path):
    mesh = jax.make_mesh((4, 2), ("data", "tensor"))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    ids = jax.device_put(np.arange(100, 108), spec)
    bad = BadSteps(tmp_path, 0, 5, named)
    bad.count(1, metrics(1), {"video": {"pair_id": ids}})
    bad.settle()
    assert lines(tmp_path)[0]["records"]["video"] == [f"video:{n}" for n in range(100, 108)]
