"""The teacher and the queue: their arithmetic, and in a run that is stopped and goes on."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from trees import assert_gradients_equal

from configs import common
from mplug2_jax.checkpoints.manager import CheckpointError, Checkpoints
from mplug2_jax.objectives import momentum
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state, restore_state
from mplug2_jax.training.step import make_train_step

OBJECTIVES = {"vtc": 1.0, "vtm": 0.0, "mlm": 1.0, "prefix_lm": 1.0, "instruct": 0.0}


def test_queue_is_first_in_first_out():
    queue, seen = momentum.empty_queue(5, 2), []
    for step in range(4):
        new = [{"visual": np.full((n, 2), 10.0 * step + n, "f"), "text": np.full((n, 2), step, "f"),
                "pair_id": np.arange(n, dtype=np.int32) + 10 * step,
                "media_id": np.full((n, 2), step + n, "i4"), "text_id": np.full((n, 2), -n, "i4"),
                "example_mask": np.arange(n) < 1} for n in (2, 1)]
        queue = momentum.push(queue, new)
        seen = [row for part in new for row in zip(
            *(part[name] for name in ("pair_id", "visual", "example_mask", "media_id", "text_id")),
            strict=True)] + seen
        filled = seen[:5]
        np.testing.assert_array_equal(queue["pair_id"][:len(filled)], [row[0] for row in filled])
        np.testing.assert_array_equal(queue["visual"][:len(filled)], [row[1] for row in filled])
        np.testing.assert_array_equal(queue["example_mask"][:len(filled)],
                                      [row[2] for row in filled])
        for place, name in ((3, "media_id"), (4, "text_id")):
            np.testing.assert_array_equal(queue[name][:len(filled)],
                                          [row[place] for row in filled])
        assert not queue["example_mask"][len(filled):].any()
        assert queue["text"].shape == (5, 2)


def test_average_and_ramp():
    options = dict(teacher=True, decay=0.9)
    still = np.random.default_rng(0).standard_normal(100).astype(np.float32)  # being frozen
    state = small.task(momentum=options).next_state(
        {"teacher": {"a": jnp.float32([1.0, 2.0]), "b": still}},
        {"a": jnp.float32([3.0, 0]), "b": still}, [])
    np.testing.assert_allclose(state["teacher"]["a"], [1.2, 1.8], rtol=1e-6)
    np.testing.assert_array_equal(state["teacher"]["b"], still)
    weights = [float(momentum.soft_weight(0.4, 4, jnp.int32(step))) for step in (0, 1, 4, 9)]
    np.testing.assert_allclose(weights, [0.0, 0.1, 0.4, 0.4], rtol=1e-6)


def setup(shape, accumulation=1, **changes):
    """The task, a mesh, the shapes of the state, a function that makes it, and the step."""
    mesh = make_mesh(*shape, jax.devices()[:int(np.prod(shape))])
    options = dict(teacher=True, decay=0.9, alpha=0.4, ramp_steps=2, queue=True, queue_size=12)
    model = small.model(vision_layers=1, fusion_layers=1, decoder_layers=1)
    task = small.task(model=model, objectives=OBJECTIVES, accumulation=accumulation,
                      momentum=options | changes)
    values = common.base("tiny").optimizer
    values.update(dict(steps=100, warmup_steps=0, learning_rate=1e-3, vision_learning_rate=1e-3))
    optimizer, _ = make_optimizer(values)

    def create(params=None):
        return create_state(task, optimizer, 0, params=params)

    shapes = jax.eval_shape(create, small.params_of(task.model))
    return task, mesh, shapes, create, make_train_step(task, optimizer, shapes, mesh, 0)


def advance(state, step, mesh):
    return step(state, put_batch({"video": small.pairs(seed=int(state.step), padding=1)}, mesh))


def without_key_biases(tree):
    """Their gradients are zero but for rounding, of which Adam makes steps of full size."""
    return {jax.tree_util.keystr(path): jax.device_get(x)
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
            if "'key']['bias']" not in jax.tree_util.keystr(path)}


def test_a_run_goes_on_on_another_mesh_and_in_micro_batches(tmp_path, caplog):
    task, mesh, shapes, create, step = setup((1, 1, 1))
    state = sharding.init_sharded(create, mesh, small.params_of(task.model))
    start = jax.device_get(state.params)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.task_state["teacher"]), start)
    state, first = advance(state, step, mesh)
    # The teacher follows every module, the fusion included.
    after = jax.device_get(state)
    teacher, queue = after.task_state["teacher"], after.task_state["queue"]
    assert_gradients_equal(teacher, jax.tree.map(
        lambda old, new: 0.9 * old.astype(np.float64) + 0.1 * new, start, after.params), 1e-6)
    moved = jax.tree.map(lambda old, new: np.abs(old - new).max(), start, teacher)
    assert set(moved) == {"vision", "text", "universal", "fusion", "decoder", "heads"}
    assert all(max(jax.tree.leaves(module)) > 0 for module in moved.values())
    # The queue holds this step's features, of unit length, newest first.
    assert queue["example_mask"].tolist() == [True] * 7 + [False] * 5
    assert queue["pair_id"][:4].tolist() == [0, 1, 2, 1]
    np.testing.assert_allclose(np.linalg.norm(queue["text"][:8], axis=1), 1, rtol=1e-5)

    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    checkpoints.save(int(state.step), state.items(), {"model": {}}, {"video": 8})
    checkpoints.wait()
    whole, metrics = advance(state, step, mesh)
    assert whole.task_state["queue"]["example_mask"].tolist() == [True] * 7 + [False] + [True] * 4
    assert float(metrics["video/vtc"]) != float(first["video/vtc"])

    task, mesh, shapes, _, step = setup((2, 2, 1), accumulation=2)
    restored = restore_state(checkpoints, shapes, mesh, task)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), after)
    kernel = restored.task_state["teacher"]["text"]["layers"]["layer"]["mlp"]["wi"]["kernel"]
    assert kernel.sharding == restored.params["text"]["layers"]["layer"]["mlp"]["wi"][
        "kernel"].sharding and not kernel.is_fully_replicated
    other, other_metrics = advance(restored, step, mesh)
    for name, value in metrics.items():
        np.testing.assert_allclose(other_metrics[name], value, rtol=1e-5, err_msg=name)
    for name in ("queue", "teacher"):
        got, wanted = other.task_state[name], whole.task_state[name]
        assert_gradients_equal(*map(without_key_biases, (got, wanted)), 1e-5)

    # Without a teacher the run goes on, and the log says what is left.
    task, mesh, shapes, _, _ = setup((1, 1, 1), teacher=False, queue=False)
    with caplog.at_level(logging.INFO, "absl"):
        plain = restore_state(checkpoints, shapes, mesh, task)
    assert plain.task_state == {}
    assert "the teacher is dropped" in caplog.text and "the queue is dropped" in caplog.text
    task, _, shapes, _, _ = setup((1, 1, 1), queue_size=13)
    with pytest.raises(CheckpointError, match=r"queue/\w+ has shape .*12.* config makes it .*13"):
        restore_state(checkpoints, shapes, mesh, task)
    checkpoints.close()


def test_a_checkpoint_without_teacher_starts_one(tmp_path, caplog):
    task, mesh, shapes, create, _ = setup((1, 1, 1), teacher=False, queue=False)
    state = sharding.init_sharded(create, mesh, small.params_of(task.model))
    assert state.task_state == {}  # off: at no cost
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    checkpoints.save(int(state.step), state.items(), {"model": {}}, {"video": 8})
    checkpoints.wait()
    task, mesh, shapes, create, _ = setup((1, 4, 1))
    with caplog.at_level(logging.INFO, "absl"):
        restored = restore_state(checkpoints, shapes, mesh, task)
    assert "holds no teacher: it starts afresh" in caplog.text
    assert "holds no queue: it starts afresh" in caplog.text
    for tree in (restored.params, restored.task_state["teacher"]):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(tree),
                     jax.device_get(state.params))
    assert not restored.task_state["queue"]["example_mask"].any()
    # What a new run starts from is its teacher, too: what was loaded, and what is drawn anew.
    loaded = jax.device_get(jax.tree.map(lambda x: x + 1, restored.params))
    heads = jax.jit(lambda: create().params["heads"])()
    expected = loaded | {"heads": jax.device_get(heads)}
    missing = jax.tree.map(lambda x: None, shapes.params["heads"])
    begun = sharding.init_sharded(create, mesh, loaded | {"heads": missing})
    for tree in (begun.params, begun.task_state["teacher"]):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(tree),
                     jax.device_get(expected))
    checkpoints.close()
