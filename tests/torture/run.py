"""All of it, one after the other: what, how often, what was lost.

    PYTHONPATH=.:tests:tests/torture python tests/torture/run.py /tmp/torture      (make torture)

Ends with 1 where anything was lost.
"""

import json
import sys
import time
from pathlib import Path

import conftest
import faults
import saves
import stops

TRIALS = {
    "bits of a checkpoint flipped": (lambda folder: saves.flips(folder), ("wrong",)),
    "kill -9 over one run": (lambda folder: saves.kills(folder),
                             ("half", "lost", "doubled", "differing")),
    "signals to one of two processes": (lambda folder: stops.signals(folder),
                                        ("lost", "differing")),
    "losses and gradients that are no numbers": (lambda folder: faults.faults(folder),
                                                 ("not_finite", "changed")),
}


def main(place):
    """Prints a table; an exit code."""
    print("compilations are kept in", conftest.CACHE)
    lost = 0
    for name, (trial, bad) in TRIALS.items():
        folder = Path(place) / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        found = trial(folder)
        wrong = [key for key in bad if found[key]]
        lost += bool(wrong)
        print(f"{name}: {'LOST ' + ', '.join(wrong) if wrong else 'nothing lost'} "
              f"({time.monotonic() - began:.0f} s)\n    {json.dumps(found)}", flush=True)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
