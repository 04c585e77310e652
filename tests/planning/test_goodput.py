"""Goodput under failures: formulas against played weeks, known limits, and the best intervals."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from configs import pretrain
from mplug2_jax.planning import goodput
from mplug2_jax.planning.failures import Run, Tier, best, shared_alone, with_local
from mplug2_jax.planning.storage import Costs, measure, tiers
from mplug2_jax.planning.weeks import simulate

SHARED, LOCAL = Tier(2.0, 60.0, 40.0), Tier(0.5, 5.0, 3.0)
RUN = Run(step=0.6, mtbf=5000.0, restart=600.0, shared=SHARED)
BOTH = dataclasses.replace(RUN, local=LOCAL, lost=0.3)
ERRORS = 4  # standard errors in which two of the checks below differ once in 16,000


def agree(run, shares, every, local_every=0):
    """The simulation finds the computed shares, and its interval is narrow enough to say so."""
    weeks = simulate(run, every, local_every, weeks=5, runs=150, seed=every + local_every)
    middle, error = weeks.interval(ERRORS)
    assert error < 0.005
    assert abs(middle - shares.goodput) < error
    down = weeks.down.std() / len(weeks.down) ** 0.5
    assert abs(weeks.down.mean() - shares.down) < ERRORS * down
    assert shares.goodput + shares.saving + shares.again + shares.down == pytest.approx(1)
    assert min(shares.goodput, shares.saving, shares.again, shares.down) >= 0


@pytest.mark.parametrize("every", [100, 300, 3000])
@pytest.mark.parametrize("mtbf", [1500.0, 20000.0])
def test_shared_checkpoints_alone_are_as_simulated(every, mtbf):
    run = dataclasses.replace(RUN, mtbf=mtbf)
    agree(run, shared_alone(run, every), every)


@pytest.mark.parametrize("lost", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("every, local_every", [(100, 100), (110, 10), (3000, 100)])
def test_local_checkpoints_are_as_simulated(lost, every, local_every):
    run = dataclasses.replace(BOTH, lost=lost, mtbf=3000.0)
    agree(run, with_local(run, every, local_every), every, local_every)


def test_a_save_that_counts_late_is_as_simulated():
    """Written for most of the interval, and often cut off by a failure."""
    run = Run(1.0, 900.0, 20.0, Tier(1.0, 280.0, 10.0), Tier(0.5, 8.0, 2.0), 0.2)
    agree(run, with_local(run, 300, 10), 300, 10)
    agree(run, shared_alone(run, 300), 300)
    slow = dataclasses.replace(run, mtbf=400.0, local=Tier(0.5, 90.0, 20.0))
    agree(slow, with_local(slow, 300, 100), 300, 100)


def test_where_nothing_fails_only_saves_cost():
    run = dataclasses.replace(BOTH, mtbf=math.inf)
    assert shared_alone(run, 200).goodput == pytest.approx(120 / 122)
    assert with_local(run, 200, 10).goodput == pytest.approx(120 / (120 + 20 * 0.5 + 2))
    assert simulate(run, 200, 10).goodput == pytest.approx(120 / (120 + 20 * 0.5 + 2), rel=1e-4)


def test_local_checkpoints_that_are_always_lost_are_shared_ones_with_more_saves():
    run = dataclasses.replace(BOTH, lost=1.0)
    dearer = dataclasses.replace(RUN, shared=Tier(2.5, 60.0, 40.0))
    both, alone = with_local(run, 200, 200), shared_alone(dearer, 200)
    assert both.goodput == pytest.approx(float(alone.goodput), rel=1e-9)
    assert both.down == pytest.approx(float(alone.down), rel=1e-9)


def test_cheap_saves_are_best_at_the_interval_of_young():
    for mtbf in (1e5, 1e6):
        run = Run(0.1, mtbf, 60.0, Tier(0.02, 0.0, 5.0))
        assert best(run).every * run.step == pytest.approx(math.sqrt(2 * 0.02 * mtbf), rel=0.01)


def test_more_hosts_more_restarts_and_slower_storage_cost_goodput():
    for run in (RUN, BOTH):
        by_mtbf = [best(dataclasses.replace(run, mtbf=mtbf)).shares.goodput
                   for mtbf in (1e6, 1e5, 1e4, 1e3)]
        by_restart = [best(dataclasses.replace(run, restart=seconds)).shares.goodput
                      for seconds in (0.0, 60.0, 600.0)]
        by_blocked = [best(dataclasses.replace(run, shared=Tier(seconds, 60.0, 40.0)))
                      .shares.goodput for seconds in (0.5, 2.0, 20.0)]
        for found in (by_mtbf, by_restart, by_blocked):
            assert found == sorted(found, reverse=True) and len(set(found)) == len(found)
    by_lost = [best(dataclasses.replace(BOTH, lost=lost)).shares.goodput
               for lost in (0.0, 0.01, 0.3, 1.0)]
    assert by_lost == sorted(by_lost, reverse=True)


@pytest.mark.parametrize("run", [
    dataclasses.replace(BOTH, step=6.0), dataclasses.replace(BOTH, step=6.0, lost=0.02),
    Run(20.0, 40000.0, 300.0, Tier(10.0, 100.0, 50.0), Tier(4.0, 30.0, 10.0), 0.1),
    Run(20.0, 9000.0, 300.0, Tier(1.0, 100.0, 50.0), Tier(1.0, 30.0, 10.0), 0.7),
], ids=["often", "seldom lost", "dear", "lost"])
def test_no_other_intervals_are_better(run):
    found = best(run)
    tried = {(local * number, local): with_local(run, local * number, local).goodput
             for local, number in itertools.product(range(1, 61), range(1, 21))
             if local * run.step >= run.local.written
             and local * number * run.step >= run.shared.written}
    assert found.shares.goodput == max(tried.values())
    alone = dataclasses.replace(run, local=None)
    intervals = range(math.ceil(run.shared.written / run.step), 300)
    assert best(alone).every == max(
        intervals, key=lambda every: float(shared_alone(alone, every).goodput))


def test_intervals_that_a_save_does_not_fit_into_are_refused():
    with pytest.raises(ValueError, match="99 steps take less than the 60 s"):
        shared_alone(RUN, 99)
    with pytest.raises(ValueError, match="steps take less than"):
        with_local(BOTH, 96, 8)
    with pytest.raises(ValueError, match="120 steps are no multiple of 50"):
        with_local(BOTH, 120, 50)
    with pytest.raises(ValueError, match="no local checkpoints"):
        with_local(RUN, 120, 40)


def test_hosts_share_the_bytes_of_a_state():
    costs = Costs(0.1, 4.0, 2.0, 0.5, 1.0, 2.0, 0.5, 1.0)
    shared, local = tiers(costs, 64 * 2 ** 30, 16, copies=2, local_copies=2)
    assert shared == Tier(0.1 + 4 / 4, 2 + 4 / 0.5, 1 + 8 / 2)
    assert local == Tier(0.1 + 8 / 4, 0.5 + 8 / 1, 0.5 + 8 / 1)
    _, doubled = tiers(costs, 64 * 2 ** 30, 16, copies=1, local_copies=2)
    assert doubled == Tier(0.1 + 4 / 4, 0.5 + 8 / 1, 0.5 + 4 / 1)


def test_real_saves_are_measured_and_nothing_is_left(tmp_path):
    costs = measure(tmp_path, Costs(local_rate=3.0), sizes=(1, 8))
    assert costs.local_rate == 3.0 and not list(tmp_path.iterdir())
    for name in ("copy", "save", "restore"):
        assert getattr(costs, f"{name}_rate") > 0 and getattr(costs, f"{name}_seconds") >= 0
    assert costs.save_seconds + 8 / 1024 / costs.save_rate > 0.001


def test_a_state_is_parameters_moments_and_what_a_task_keeps():
    config = pretrain.get_config("tiny,image")
    size = goodput.state_bytes(config)
    config.optimizer.ema_decay = 0.99
    parameters = goodput.state_bytes(config) - size
    # Two moments of each, and counters.
    assert 3 * parameters < size < 3.01 * parameters


def test_plans_differ_in_what_a_failure_leaves():
    def made(copies):
        costs = Costs(restore_seconds=0.0, restore_rate=1.0)
        return goodput.plans(costs, 2 ** 34, 0.6, 3e7, 600.0, 0.8, copies)

    none, own, two = made(1)
    assert none.runs[8].local is None and own.runs[8].lost == 0.8
    assert two.runs[8].lost == pytest.approx(0.8 * (600 + 2) / 3e7, rel=1e-3)
    assert two.runs[8].local.written > own.runs[8].local.written
    none, own = made(2)
    assert own.runs[8].lost == pytest.approx(0.8 * (600 + 4) / 3e7, rel=1e-3)
    assert np.diff([run.mtbf for run in none.runs.values()]).max() < 0
