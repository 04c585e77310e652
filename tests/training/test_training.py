"""Optimizer groups, FLOP counting, progress; checkpoints on other meshes and by module."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from ml_collections import ConfigDict

from configs import common
from mplug2_jax import launch
from mplug2_jax.checkpoints.manager import CheckpointError, Checkpoints
from mplug2_jax.model.mplug2 import init_params
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.training import measures
from mplug2_jax.training.optimizer import make_optimizer, rates_of
from mplug2_jax.training.progress import Progress
from mplug2_jax.training.state import create_state, restore_state
from mplug2_jax.training.step import make_train_step

pytestmark = pytest.mark.slow


def options(**changes) -> ConfigDict:
    values = common.base("tiny").optimizer
    values.update(dict(steps=100, warmup_steps=10, learning_rate=1e-2, vision_learning_rate=1e-3,
                       final_learning_rate=1e-6) | changes)
    return values


def test_schedule_warms_up_and_ends_where_it_began():
    _, rates = make_optimizer(options())
    rate = rates["learning_rate"]
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(55), rate(100)],
                               [1e-6, (1e-6 + 1e-2) / 2, 1e-2, (1e-6 + 1e-2) / 2, 1e-6], rtol=1e-3)


def test_groups_have_their_rates_and_only_directions_decay():
    optimizer, rates = make_optimizer(options(weight_decay=0.5, clip_norm=1e9))
    params = {
        "vision": {"blocks": {"kernel": jnp.ones(3), "bias": jnp.ones(3)},
                   "project": {"kernel": jnp.ones(3)}},
        "text": {"norm": {"scale": jnp.ones(3)}, "wi": {"kernel": jnp.ones(3)}},
        "heads": {"vtc": {"temperature": jnp.ones(3)}},
    }
    state = optimizer.init(params)
    grads = jax.tree.map(lambda x: jnp.full_like(x, 2.0), params)
    updates, _ = optimizer.update(grads, state, params)
    # The first Adam step is the sign of the gradient; decay adds 0.5 of the weight.
    start, vision = float(rates["learning_rate"](0)), 1e-6
    expected = {"blocks/kernel": -1.5 * vision, "blocks/bias": -vision,
                "project/kernel": -1.5 * start}
    for name, value in expected.items():
        one, two = name.split("/")
        np.testing.assert_allclose(updates["vision"][one][two], value, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(updates["text"]["norm"]["scale"], -start, rtol=1e-4)
    np.testing.assert_allclose(updates["text"]["wi"]["kernel"], -1.5 * start, rtol=1e-4)
    np.testing.assert_allclose(updates["heads"]["vtc"]["temperature"], -start, rtol=1e-4)


def test_rates_are_those_that_the_step_used():
    """Adam's update under a constant gradient is its sign: a step moves each group by its rate."""
    optimizer, rates = make_optimizer(options(clip_norm=1e9, weight_decay=0.0))
    params = {"vision": {"blocks": {"bias": jnp.ones(3)}}, "text": {"bias": jnp.ones(3)}}
    state, grads = optimizer.init(params), jax.tree.map(jnp.ones_like, params)
    assert len({rates["learning_rate"](step).item() for step in range(13)}) == 13
    for step in range(1, 14):
        updates, state = optimizer.update(grads, state, params)
        used = rates_of(step, rates)
        np.testing.assert_allclose(updates["text"]["bias"], -used["learning_rate"], rtol=1e-4)
        np.testing.assert_allclose(updates["vision"]["blocks"]["bias"],
                                   -used["vision_learning_rate"], rtol=1e-4)
    assert rates_of(1, rates) == pytest.approx(
        {"learning_rate": 1e-6, "vision_learning_rate": 1e-6}, rel=1e-3)


def test_flops_count_products_and_loops():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 16))
    assert count_flops(lambda x, w: x @ w, x, w) == 2 * 4 * 8 * 16

    def loop(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w @ w.T), None), x, length=5)[0]

    assert count_flops(loop, x, w) == 5 * 2 * (2 * 4 * 8 * 16)
    assert count_flops(jax.jit(loop), x, w) == count_flops(loop, x, w)


def test_looped_and_scanned_models_have_equal_flops():
    batch = small.batch()
    counts = []
    for scan in (False, True):
        task = small.task(model=small.model(scan=scan))
        params = jax.eval_shape(lambda task=task: init_params(task.model, jax.random.key(0)))
        counts.append(count_flops(task.loss, params, batch, jax.random.key(0)))
    assert counts[0] == counts[1] > 0


def test_progress_measures_without_pauses(monkeypatch):
    figures = small.task().figures
    clock = iter([0.0, 10.0, 45.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    amounts = {"examples": 8, "frames": 24, "positions": 100}
    ledger = SimpleNamespace(begin=lambda step: None, paused=0.0)
    progress = Progress(100, amounts, 1e9, lambda: 1e10, figures, ledger)
    for step in range(1, 22):  # the first is not measured
        progress.count(step, {"tokens": jnp.float32(2 * step)})
    speed = progress.measure(21)  # 20 steps in 10 s
    assert speed == {"examples_per_second": 16, "average_examples_per_second": 16, "mfu": 0.2,
                     "frames_per_second": 48, "tokens_per_second": 46, "padding": 0.77}
    for step in range(22, 32):
        progress.count(step, {"tokens": jnp.float32(100)})
    ledger.paused = 15.0
    later = progress.measure(31)  # 10 steps in 20 s beside these
    assert (later["examples_per_second"], later["average_examples_per_second"]) == (4, 8)
    assert (later["tokens_per_second"], later["padding"]) == (50, 0)
    line = progress.line(31, {"loss": 1.0, "video/vtc": 0.5, "video/vtc_t2v": 1.0}, speed)
    assert line == ("step 31/100 loss 1.0000 | video/vtc 0.500 | 16 examples/s | MFU 20% | "
                    "0:34 left")
    del speed["mfu"]
    assert "| 16 examples/s | 0:34 left" in progress.line(31, {"loss": 1.0}, speed)


def test_what_is_not_there_is_not_measured(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    ledger = SimpleNamespace(begin=lambda step: None, paused=0.0)
    progress = Progress(100, {"examples": 8}, 1e9, lambda: None, (), ledger)
    for step in (1, 2):
        progress.count(step, {"tokens": jnp.float32(0)})
    assert progress.measure(21).keys() == {"examples_per_second", "average_examples_per_second"}


def test_a_step_says_what_it_read_and_norms_by_module():
    """Against NumPy, one by one: of examples that fill a batch and of padding nothing counts."""
    batch = small.batch(padding=3)
    read = {"examples": 24, "frames": 8 + 16, "positions": 8 * (2 * (10 + 6 + 4) + 12)}
    assert measures.amounts(batch) == read
    words = sum(int(mask) for rows in batch.values() for text in ("text", "prompt", "target")
                for row, real in zip(rows.get(f"{text}_mask", ()), rows["example_mask"],
                                     strict=False) if real for mask in row)
    assert measures.tokens(batch) == words < read["positions"]
    tree = {"vision": {"a": np.full((2, 2), 3.0, np.float32)},
            "heads": {"b": np.full(4, 2.0, np.float32), "c": {"d": np.float32(3.0)}}}
    found = measures.norms("grad_norm", tree)
    assert found == {"grad_norm": pytest.approx(np.sqrt(36 + 25)),
                     "grad_norm/vision": pytest.approx(6), "grad_norm/heads": pytest.approx(5)}


def setup(shape):
    """The task, a mesh, the shapes of the state, a function that places it, and the step."""
    mesh = make_mesh(*shape, jax.devices()[:int(np.prod(shape))])
    task = small.task("captioning", memory="visual")  # quick to compile
    optimizer, _ = make_optimizer(options())

    start = functools.partial(small.state_of, task, optimizer, mesh)
    shapes = jax.eval_shape(functools.partial(create_state, task, optimizer, 0, False),
                            small.params_of(task.model))
    return task, mesh, shapes, start, make_train_step(task, optimizer, shapes, mesh, 0)


def advance(state, step, mesh, steps):
    """Takes some steps, each on the batch of its number: the state and the losses."""
    values = []
    for _ in range(steps):
        batch = {"video": small.pairs(seed=int(state.step))}
        state, metrics = step(state, put_batch(batch, mesh))
        values.append(float(metrics["loss"]))
    return state, values


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoint of two steps on two devices, and that state."""
    folder = tmp_path_factory.mktemp("checkpoints")
    _, mesh, _, start, step = setup((1, 2, 1))
    state, _ = advance(start(), step, mesh, 2)
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.save(2, state.items(), {"model": {}}, {"video": 16})
    checkpoints.close()
    return folder, jax.device_get(state)


def test_a_checkpoint_goes_on_on_another_mesh(saved):
    folder, state = saved
    task, mesh, shapes, start, step = setup((1, 1, 1))
    _, whole = advance(start(), step, mesh, 3)
    checkpoints = Checkpoints(folder)
    assert checkpoints.meta()["samples"] == {"video": 16}
    restored = restore_state(checkpoints, shapes, mesh, task)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), state)
    _, (loss,) = advance(restored, step, mesh, 1)
    np.testing.assert_allclose(loss, whole[2], rtol=1e-4)
    task, mesh, shapes, _, _ = setup((1, 8, 1))
    restored = restore_state(checkpoints, shapes, mesh, task)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), state)
    checkpoints.close()


def test_a_step_lowers_the_loss():
    task = small.task("retrieval")
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    optimizer, _ = make_optimizer(options(learning_rate=1e-3))

    state = small.state_of(task, optimizer, mesh)
    step = make_train_step(task, optimizer, state, mesh, 0)
    batch = put_batch({"video": small.pairs()}, mesh)
    values = []
    for _ in range(15):
        state, metrics = step(state, batch)
        values.append(float(metrics["loss"]))
        parts = {key: value for key, value in metrics.items() if key.startswith("grad_norm/")}
        assert parts.keys() == {f"grad_norm/{module}" for module in state.params}
        np.testing.assert_allclose(sum(float(part) ** 2 for part in parts.values()),
                                   float(metrics["grad_norm"]) ** 2, rtol=1e-5)
    assert values[-1] < 0.8 * values[0]
    assert int(state.step) == 15


def test_loading_by_module_is_strict(saved):
    folder, state = saved
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    checkpoints = Checkpoints(folder)
    whole = jax.eval_shape(
        lambda: init_params(small.task("captioning", memory="visual").model, jax.random.key(0)))
    captioning = {name: whole[name] for name in ("universal", "decoder")}
    params = checkpoints.load_params(captioning, mesh)
    assert set(params) == {"universal", "decoder"}
    np.testing.assert_array_equal(params["universal"]["latents"],
                                  state.params["universal"]["latents"])
    wanted = {**captioning, "pooler": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}}
    with pytest.raises(CheckpointError, match="lacks 1 parameter.*pooler/kernel"):
        checkpoints.load_params(wanted, mesh)
    partly = checkpoints.load_params(wanted, mesh, allow_new=["pooler"])
    assert partly["pooler"] == {"kernel": None}
    other = jax.eval_shape(lambda: init_params(
        small.task("captioning", small.model(mlp_dim=32), memory="visual").model,
        jax.random.key(0)))
    with pytest.raises(CheckpointError, match=r"has shape .*64.* the config makes it .*32"):
        checkpoints.load_params(other, mesh)
    checkpoints.close()


def test_no_checkpoint_is_said_in_a_line(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        Checkpoints(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Checkpoints(tmp_path / "empty")


def test_log_goes_on_without_repeating_steps(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')  # killed while writing
    with launch.open_log(path, 2) as log:
        log.write('{"step": 3, "again": true}\n')
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "again": true}\n'
