"""The guard: a step whose loss or gradient is no number, or a spike, changes nothing to the bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.training import guard
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state, restore_state
from mplug2_jax.training.step import make_train_step

ROWS, WIDTH = 8, 8


class Line:
    """A linear regression that keeps a queue of inputs and a slow copy of its weights.

    `root` adds the square root of a parameter: at 0 the loss is finite and one gradient is not.
    """

    younger_state: dict = {}

    def init_params(self, rng):
        return {"line": {"kernel": jax.random.normal(rng, (WIDTH, WIDTH)),
                         "root": jnp.ones(WIDTH)}}

    def init_state(self, params):
        return {"teacher": jax.tree.map(jnp.copy, params), "queue": jnp.zeros((ROWS, WIDTH))}

    def loss(self, params, batch, rng, task_state, step):
        rows = batch["rows"]
        out = rows["x"] @ params["line"]["kernel"] - rows["y"]
        root = jnp.sqrt(params["line"]["root"] * rows["root"]).sum()
        loss = jnp.mean(out**2) + root
        return loss, ({"rows/loss": loss}, rows["x"])

    def next_state(self, task_state, params, carry):
        slow = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, task_state["teacher"], params)
        return {"teacher": slow, "queue": carry}


def batch_of(seed, **changes):
    rng = np.random.default_rng(seed)
    return {"rows": {"x": rng.normal(size=(ROWS, WIDTH)).astype(np.float32),
                     "y": rng.normal(size=(ROWS, WIDTH)).astype(np.float32),
                     "root": np.ones((ROWS, WIDTH), np.float32),
                     "example_mask": np.ones(ROWS, bool)} | changes}


def with_value(seed, key, value, row=3):
    batch = batch_of(seed)
    batch["rows"][key][row, 2] = value
    return batch


BAD = {
    "NaN in the loss": functools.partial(with_value, key="x", value=np.nan),
    "infinity in the loss": functools.partial(with_value, key="y", value=np.inf),
    "one gradient alone": functools.partial(with_value, key="root", value=0.0),
    "a gradient too large for its norm": functools.partial(with_value, key="x", value=1e25),
}


@pytest.fixture(scope="module", params=[1, 8], ids=["1 device", "8 devices"])
def learner(request):
    return make(request.param)


@functools.cache
def make(devices, window=0, frozen=()):
    """A step over so many devices and how its state begins."""
    options = common.base("tiny").optimizer
    options.update(dict(steps=100, warmup_steps=2, learning_rate=1e-2, frozen=frozen))
    mesh = make_mesh(min(devices, 2), -1, 1, jax.devices()[:devices])
    optimizer, _ = make_optimizer(options)
    task = Line()
    create = functools.partial(create_state, task, optimizer, 0, True, spike_window=window)
    step = make_train_step(task, optimizer, jax.eval_shape(create), mesh, 0, frozen, 0.5, 4.0)
    return step, create, mesh, task


def run(made, batches):
    """The states after each batch, on the host, and the metrics."""
    step, create, mesh, _ = made
    state = sharding.init_sharded(create, mesh)
    states, metrics = [jax.device_get(state)], []
    for batch in batches:
        state, said = step(state, put_batch(batch, mesh))
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(said))
    return states, metrics


def changing(state):
    return state.params, state.opt_state, state.task_state, state.ema


def equal(one, other):
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and x.tobytes() == y.tobytes(), one, other)
    return all(jax.tree.leaves(same))


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_step_changes_nothing_and_the_run_goes_on(learner, kind):
    good, bad = [batch_of(n) for n in range(3)], BAD[kind](7)
    states, metrics = run(learner, [good[0], bad, good[1], bad, bad, good[2]])
    assert [int(state.step) for state in states] == [0, 1, 2, 3, 4, 5, 6]
    assert [int(state.skipped) for state in states] == [0, 0, 1, 1, 2, 3, 3]
    assert [int(said["skipped_in_a_row"]) for said in metrics] == [0, 1, 0, 1, 2, 0]
    for before, after in ((1, 2), (3, 4), (4, 5)):
        assert equal(changing(states[before]), changing(states[after]))
    for before, after in ((0, 1), (2, 3), (5, 6)):
        assert not equal(states[before].params, states[after].params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(changing(states[-1])))
    # What comes of the good ones is what would have come of them alone, but for the average, whose
    # weight goes by the step.
    alone, _ = run(learner, good)
    assert equal(changing(alone[-1])[:3], changing(states[-1])[:3])


def test_frozen_parameters_and_their_averages_stay_as_they_are():
    made = make(1, frozen=("root$",))
    states, _ = run(made, [batch_of(0), BAD["NaN in the loss"](1), batch_of(2)])
    for tree in (states[-1].params, states[-1].ema):
        assert tree["line"]["root"].tobytes() == states[0].params["line"]["root"].tobytes()


def plain_is_spike(norms, norm, window, deviations):
    """The rule in NumPy, of all norms before."""
    last = np.asarray(norms[-window:])
    if len(last) < window:
        return False
    middle = np.median(last)
    return norm > middle + deviations * 1.4826 * np.median(np.abs(last - middle))


def test_spikes_are_skipped_by_the_stated_rule():
    window = 9
    batches = [batch_of(n) for n in range(40)]
    for number, factor in ((4, 30), (20, 30), (21, 3), (30, 1.5), (31, 1000)):
        batches[number]["rows"]["y"] *= factor
    batches[25] = BAD["NaN in the loss"](25)
    states, metrics = run(make(1, window), batches)
    norms, skipped = [], 0
    for number, said in enumerate(metrics):
        norm = said["grad_norm"]
        bad = not np.isfinite(norm) or plain_is_spike(norms, norm, window, 4.0)
        skipped += bad
        assert int(said["skipped_steps"]) == skipped, number
        assert equal(changing(states[number]), changing(states[number + 1])) == bad, number
        if np.isfinite(norm):
            norms.append(norm)
    # Before the window is full nothing is a spike; the large ones after that are.
    assert not equal(states[4].params, states[5].params)
    for number in (20, 25, 31):
        assert equal(states[number].params, states[number + 1].params), number
    assert skipped < 12


def test_larger_gradients_that_stay_are_learned_from_again():
    window = 9
    batches = [batch_of(n) for n in range(40)]
    for batch in batches[15:]:
        batch["rows"]["y"] *= 30
    _, metrics = run(make(1, window), batches)
    in_a_row = [int(said["skipped_in_a_row"]) for said in metrics[15:]]
    assert in_a_row[0] == 1
    assert in_a_row[window] == 0


def test_with_other_batch_sizes_the_window_is_filled_anew():
    """Norms of a smaller batch are larger, and no spikes; steps that were skipped stay counted."""
    window = 9
    step, create, mesh, _ = make(1, window)
    state = sharding.init_sharded(create, mesh)
    batches = [BAD["NaN in the loss"](0), *(batch_of(n) for n in range(1, 2 * window + 3))]
    for batch in batches[window + 2:]:
        batch["rows"]["y"] *= 30
    batches[-1]["rows"]["y"] *= 30
    skipped = []
    for number, batch in enumerate(batches):
        if number == window + 2:
            state = state.replace(guard=guard.emptied(state.guard))
        state, said = step(state, put_batch(batch, mesh))
        skipped.append(int(said["skipped_steps"]))
    assert skipped == [1] * (len(batches) - 1) + [2]  # and the full window knows a spike again


@pytest.mark.parametrize("before, after", [(9, 9), (9, 12), (0, 9), (9, 0)])
def test_counts_and_window_go_on_from_a_checkpoint(before, after, tmp_path):
    step, create, mesh, task = make(1, before)
    state = sharding.init_sharded(create, mesh)
    for batch in (batch_of(0), BAD["NaN in the loss"](1), BAD["NaN in the loss"](1)):
        state, _ = step(state, put_batch(batch, mesh))
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(3, state.items(), {"model": {}}, {})
    checkpoints.wait()
    shapes = jax.eval_shape(make(1, after)[1])
    found = restore_state(checkpoints, shapes, mesh, task)
    checkpoints.close()
    assert (int(found.skipped), int(found.guard.in_a_row)) == (2, 2)
    if before == after:
        assert equal(jax.device_get(found.guard), jax.device_get(state.guard))
    elif after:
        assert int(found.guard.seen) == 0
        assert found.guard.norms.shape == (after,)
    else:
        assert found.guard.norms is None
    assert equal(jax.device_get(found.params), jax.device_get(state.params))


def test_a_checkpoint_of_before_the_guard_has_skipped_nothing(tmp_path):
    step, create, mesh, task = make(1)
    state = sharding.init_sharded(create, mesh)
    state, _ = step(state, put_batch(batch_of(0), mesh))
    items = {name: tree for name, tree in state.items().items() if name != "guard"}
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, items, {"model": {}}, {})
    checkpoints.wait()
    found = restore_state(checkpoints, jax.eval_shape(create), mesh, task)
    checkpoints.close()
    assert (int(found.step), int(found.skipped)) == (1, 0)
    assert equal(jax.device_get(found.guard), jax.device_get(guard.start_guard()))
