"""Runs that go on with other batch sizes keep to their plan by samples."""

import json
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import common
from mplug2_jax.training.optimizer import make_optimizer, rates_of
from mplug2_jax.training.pace import PLANNED, Pace
from mplug2_jax.training.step import loss_and_gradient

STEPS = 60


def options(**changes):
    values = common.base("tiny").optimizer
    values.update(dict(steps=STEPS, warmup_steps=10, learning_rate=1e-2,
                       vision_learning_rate=1e-3, clip_norm=1e9, weight_decay=0.0) | changes)
    return values


def resumed(said, *change):
    """The pace of a run that goes on from a checkpoint that says so of it."""
    return Pace.read(said).changed(*change)


sizes = st.fixed_dictionaries({"video": st.integers(1, 64), "text": st.integers(1, 64)})


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(sizes, st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=6))
def test_the_plan_goes_by_the_samples_of_all_streams(parts):
    """Whatever the sizes and however often they change, also where steps changed nothing."""
    first = sum(parts[0][0].values())
    pace, before, step, skipped, read, learned = PLANNED, parts[0][0], 0, 0, 0, 0
    for now, good, bad in parts:
        pace = resumed(json.loads(json.dumps(pace.plain())), step, step - skipped, before, now)
        before, step, skipped = now, step + good + bad, skipped + bad
        read += (good + bad) * sum(now.values())
        learned += good * sum(now.values())
        assert pace.done(step) == Fraction(read, first)
        count = pace.of_updates(lambda planned: planned)(step - skipped)
        assert float(count) == pytest.approx(learned / first)
    # It ends with the first step after which all that was planned is read.
    total = math.ceil(pace.done(step)) + 3
    last, size = pace.last(total), sum(before.values())
    assert 0 <= read + (last - step) * size - total * first < size
    back = resumed(pace.plain(), step, step, before, parts[0][0])
    assert back.share == 1 and back.done(step) == pace.done(step)


def test_streams_that_come_and_go_change_no_pace():
    assert resumed(None, 5, 5, {"text": 8}, {"text": 8, "video": 4}) == PLANNED
    assert resumed(None, 5, 5, {"text": 8, "video": 4}, {"text": 8}) == PLANNED
    assert resumed(None, 5, 5, {"text": 8}, {"video": 4}) == PLANNED
    twice = resumed(None, 5, 5, {"text": 8, "image": 2}, {"text": 16, "video": 4})
    assert twice == Pace(5, 5, Fraction(5), Fraction(5), Fraction(2))


def test_without_a_change_nothing_is_computed_otherwise(caplog):
    """The very schedule and the very number: what is compiled is what it was."""
    rate = optax.constant_schedule(1.0)
    step = jnp.asarray(3)
    for pace in (PLANNED, resumed(None, 7, 6, {"text": 8}, {"text": 8})):
        assert pace.of_updates(rate) is rate and pace.of_steps(step) is step
        assert pace.last(STEPS) == STEPS
    assert not caplog.records


@pytest.mark.parametrize("factor", [3, Fraction(1, 2)])
def test_the_rate_is_that_of_the_samples_and_the_one_that_is_used(factor):
    """Adam's update under a constant gradient is its sign: a step moves by its rate.

    Two steps were skipped before the change, and one is after it.
    """
    _, plan = make_optimizer(options())
    before, skipped = 12, 2
    pace = resumed(None, before, before - skipped, {"text": 8}, {"text": int(8 * factor)})
    optimizer, rates = make_optimizer(options(), pace)
    params = {"vision": {"blocks": {"bias": jnp.ones(3)}}, "text": {"bias": jnp.ones(3)}}
    grads = jax.tree.map(jnp.ones_like, params)
    state = make_optimizer(options())[0].init(params)  # of the checkpoint: it has no pace
    state = jax.tree.map(lambda x: x + before - skipped if x.dtype == jnp.int32 else x, state)
    update = jax.jit(optimizer.update)
    seen = []
    for step in range(before + 1, pace.last(STEPS) + 1):
        used = rates_of(step - skipped, rates)
        if step == before + 2:  # it changes nothing, nor does it count
            skipped += 1
            continue
        updates, state = update(grads, state, params)
        done = before - 2 + (step - 1 - before - (skipped - 2)) * float(factor)
        for name, group in (("learning_rate", updates["text"]["bias"]),
                            ("vision_learning_rate", updates["vision"]["blocks"]["bias"])):
            np.testing.assert_allclose(used[name], float(plan[name](done)), rtol=1e-5)
            # Of moments that begin at 0 after a count of 10 the first updates are smaller.
            seen.append((name, -float(group[0]) / used[name]))
    rest, vision = ([ratio for one, ratio in seen if one == name]
                    for name in ("learning_rate", "vision_learning_rate"))
    np.testing.assert_allclose(rest, vision, rtol=1e-5)
    plain, _ = make_optimizer(options(learning_rate=1.0, vision_learning_rate=1.0,
                                      final_learning_rate=1.0))
    expected = jax.tree.map(lambda x: x + before - 2 if x.dtype == jnp.int32 else x,
                            plain.init(params))
    for ratio in rest:
        updates, expected = plain.update(grads, expected, params)
        np.testing.assert_allclose(ratio, -float(updates["text"]["bias"][0]), rtol=1e-5)


def test_a_task_counts_the_steps_of_the_plan():
    class Told:
        def loss(self, params, batch, rng, task_state, step):
            return params * step, ({}, None)

    class State:
        params, task_state, step = jnp.asarray(1.0), None, jnp.asarray(20)

    for pace, expected in ((PLANNED, 20), (resumed(None, 10, 10, {"a": 4}, {"a": 8}), 30),
                           (resumed(None, 10, 10, {"a": 4}, {"a": 2}), 15)):
        (loss, _), _ = loss_and_gradient(Told(), 0, (), pace)(State, None)
        assert float(loss) == expected
