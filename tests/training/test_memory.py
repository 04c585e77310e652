"""What a run holds does not grow: the short form of `tests/torture/memory.py`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, run

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
stops, memory = __import__("stops"), __import__("memory")


@pytest.mark.slow
def test_steps_and_saves_leave_no_handles_arrays_or_objects(miniature, tmp_path):
    lines = tmp_path / "held.jsonl"
    run("tests/watched.py", lines, 50, 20, *stops.train(
        miniature, tmp_path / "run", "--config.optimizer.steps=250",
        "--config.checkpoint_every=30"), path=ROOT / "tests")
    looks = [json.loads(line) for line in lines.open()]
    assert len(looks) >= 10
    for name, most in (("arrays", 0), ("files", 0), ("threads", 0), ("objects", 500),
                       ("blocks", 3_000), ("allocated", 6)):
        found = [one[name] for one in looks]
        # Pools are filled at first; then data are read and checkpoints checked meanwhile: what
        # stays is what all looks have.
        assert min(found[7:]) <= min(found[3:7]) + most, (name, found)


def test_an_interval_tells_a_slope_from_none():
    """Neighbours are alike, as of what a process holds."""
    rng, places = np.random.default_rng(0), np.arange(525, 3000, 50)
    noise = [0.0]
    for drawn in rng.normal(size=len(places)):
        noise.append(0.5 * noise[-1] + drawn)
    low, slope, high = memory.interval(places, 700 + np.array(noise[1:]))
    assert low < 0 < high and low < slope < high
    low, slope, high = memory.interval(places, 700 + np.array(noise[1:]) + 0.01 * places)
    assert 0 < low < 0.01 < high
    assert memory.interval(places, np.full(len(places), 7)) == pytest.approx((0, 0, 0), abs=1e-9)
