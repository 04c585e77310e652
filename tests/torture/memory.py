"""A long run with saves and validations: memory and handles stay as they are.

    PYTHONPATH=.:tests:tests/torture python tests/torture/memory.py /tmp/memory
"""

import json
import sys
from pathlib import Path

import numpy as np
import stops
from commands import ROOT, run
from scipy import stats

CONFIG = "tests/steady_config.py"
STEPS, WARM = 3_000, 500
SAVED, VALIDATED, LOGGED = 50, 100, 5  # every so many steps
TOGETHER = 5  # looks, of which the least counts: what is there for a moment is nothing that stays
# How much more there may be after AHEAD further steps: MiB that the run has of its allocator, and
# that its workers have; arrays of devices, objects and blocks of Python, and handles.
AHEAD = 100_000
LIMITS = {"allocated": 100.0, "workers": 20.0, "arrays": 0.0, "objects": 50_000.0,
          "blocks": 500_000.0, "files": 0.0, "threads": 0.0, "maps": 1_000.0, "shared": 0.0,
          "memory": np.inf}
# Of MiB, the most that the interval's end may be; of the resident memory it is all that is asked,
# for an allocator whose free parts are scattered takes more than it has given.
UNSURE = {"allocated": 1_000.0, "memory": 2_500.0}


def flat(folder, steps=STEPS, warm=WARM):
    """Trains on, and fits a line through what the run holds, each time between two saves.

    Returns:
      `steps`; `looks`, of those after the first `warm` steps; by name of `LIMITS` the growth in
      `AHEAD` steps, `[low, growth, high]` with its 95 % interval; `held`: what there was on
      average; `growing`: names whose interval is above its limits.
    """
    folder = Path(folder)
    data, workdir, lines = stops.prepare(folder / "data"), folder / "run", folder / "held.jsonl"
    run("tests/watched.py", lines, SAVED // 2, SAVED,
        *stops.train(data, workdir, f"--config.optimizer.steps={steps}",
                     f"--config.log_every={LOGGED}", f"--config.checkpoint_every={SAVED}",
                     f"--config.eval_every={VALIDATED}", "--config.data.workers=1", config=CONFIG),
        path=ROOT / "tests", timeout=1500)
    return measured([json.loads(line) for line in lines.open()], steps, warm)


def measured(looks, steps, warm):
    """The lines through what was seen, as `flat` returns them."""
    looks = [one for one in looks if one["step"] > warm]
    found, growing = {}, []
    for name, limit in LIMITS.items():
        growth = interval(*(least(looks, key, TOGETHER) for key in ("step", name)))
        found[name] = [round(AHEAD * x, 1) + 0.0 for x in growth]
        most = UNSURE.get(name, np.inf)
        growing += [name] * bool(found[name][0] > limit or found[name][2] > most)
    held = {name: round(float(np.mean([one[name] for one in looks])), 1) for name in LIMITS}
    return {"steps": steps, "looks": len(looks), **found, "held": held, "growing": growing}


def least(looks, name, together):
    """Of so many looks at a time the least value."""
    values = [one[name] for one in looks[:len(looks) // together * together]]
    return np.array(values, float).reshape(-1, together).min(axis=1)


def interval(places, values):
    """The slope of values over places, and its 95 % interval: `(low, slope, high)`.

    Neighbours are alike: what is left beside the line counts as so many fewer values as a process
    of its correlation from one to the next has (Santer et al. 2000).
    """
    places, values = np.array(places, float), np.array(values, float)
    slope, begin = np.polyfit(places, values, 1)
    left = values - (begin + slope * places)
    power = (left ** 2).sum()
    alike = max(0.0, (left[1:] * left[:-1]).sum() / power) if power else 0.0
    count = max(3.0, len(values) * (1 - alike) / (1 + alike))
    error = (power / (count - 2) / ((places - places.mean()) ** 2).sum()) ** 0.5
    half = stats.t.ppf(0.975, count - 2) * error
    return float(slope - half), float(slope), float(slope + half)


if __name__ == "__main__":
    found = flat(sys.argv[1])
    print(json.dumps(found))
    sys.exit(bool(found["growing"]))
