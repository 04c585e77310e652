"""Damage and kills, many of them: each function does it for real and returns what it counted.

    PYTHONPATH=.:tests python tests/torture/saves.py [FOLDER]
"""

import json
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import conftest
import jax
import numpy as np
import saves_script
import stops
from commands import ROOT, losses, run, seen
from forks import Fork

from mplug2_jax.checkpoints import CheckpointError, Checkpoints, manifest
from mplug2_jax.checkpoints.choice import stored

STEPS = 40  # of the run that is killed
INSIDE = 10  # kills that must fall inside a save


def flips(folder, count=200, seed=0):
    """Single bits flipped at random places of a checkpoint, each alone.

    Returns:
      `flipped`; of these `rejected`; `taken` as it was, for nothing that is read was changed;
      `wrong`: arrays restored that are not those that were saved.
    """
    params = saves_script.walk(saves_script.begin(), 1)
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(1, {"params": params}, {"model": {}}, {"video": saves_script.BATCH})
    params = jax.device_get(params)
    draw, counts = random.Random(seed), dict(flipped=0, rejected=0, taken=0, wrong=0)
    files = sorted(path for path in (folder / "1").rglob("*") if path.is_file())
    for path in draw.choices(files, [path.stat().st_size for path in files], k=count):
        content = bytearray(path.read_bytes())
        place, whole = draw.randrange(len(content)), bytes(content)
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            found = jax.device_get(saves_script.restored(Checkpoints(folder)))
            same = all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(params)))
            counts["taken" if same else "wrong"] += 1
        except CheckpointError:
            counts["rejected"] += 1
        path.write_bytes(whole)
        counts["flipped"] += 1
    return counts


def kills(folder, count=30, seed=0):
    """SIGKILLs of one run of `train.py` that saves every step, drawn over the bytes it writes.

    Returns:
      `kills`; of these `inside` a save, and how many too few, `outside`; starts from `half`
      checkpoints, and from `older` ones than the newest whole one; `lost` and `doubled` samples of
      all streams, and `differing` arrays of the last checkpoint, against a run that nothing
      interrupts; `damaged`: warnings of such checkpoints.
    """
    data = stops.prepare(folder / "data")
    run(*_train(data, folder / "straight"), path=ROOT / "tests")
    workdir, draw = folder / "killed", random.Random(seed)
    checkpoints = workdir / "checkpoints"
    counts = dict(kills=0, inside=0, half=0, older=0, damaged=0)
    newest = max(stored(folder / "straight" / "checkpoints"))
    written = sum(path.stat().st_size for path in
                  (folder / "straight" / "checkpoints" / str(newest)).rglob("*") if path.is_file())
    while counts["kills"] < count:
        # A life writes up to two checkpoints, one on average: the run ends after its last kill.
        most = int(draw.uniform(0.02, 2.0) * written)
        good = _whole(checkpoints)
        process = Fork(["tests/killed.py", checkpoints, most, *_train(data, workdir)],
                       seen(path=ROOT / "tests"))
        output = process.communicate(timeout=900)[0]
        _check_start(output, good, counts)
        assert process.returncode == -9, output[-3000:]
        counts["kills"] += 1
        counts["inside"] += any("saving" in path.name for path in checkpoints.iterdir())
    good = _whole(checkpoints)
    _check_start(run(*_train(data, workdir), path=ROOT / "tests"), good, counts)
    counts["outside"] = max(0, INSIDE - counts["inside"])
    return counts | _compared(folder / "straight", workdir)


def _whole(checkpoints):
    """Steps of the checkpoints of a folder, if it is there, that are whole by their files."""
    return {step for step in (stored(checkpoints) if checkpoints.is_dir() else [])
            if not manifest.damage(checkpoints / str(step))}


def _train(data, workdir):
    return stops.train(data, workdir, f"--config.optimizer.steps={STEPS}",
                       "--config.checkpoint_every=1", "--config.keep_checkpoints=2",
                       config="tests/kills_config.py")


def _check_start(output, good, counts):
    """Counts what a life says of its start."""
    started = max(map(int, re.findall(r"going on from step (\d+)", output)), default=0)
    counts["half"] += started not in {0, *good}
    counts["older"] += started < max(good, default=0)
    counts["damaged"] += output.count("is damaged")


def _compared(straight, killed):
    """The ends of two runs."""
    wanted, found = map(_samples, (straight, killed))
    positions = [Checkpoints(workdir / "checkpoints").meta()["samples"]
                 for workdir in (straight, killed)]
    assert positions[0] == positions[1] and losses(straight) == losses(killed)
    return dict(samples=found.total(), lost=(wanted - found).total(),
                doubled=(found - wanted).total(),
                differing=len(stops.differing(straight, killed)))


def _samples(workdir):
    """How often each step read each record, as its rows in `train.jsonl` say."""
    return Counter((line["step"], name.split("/")[1], number)
                   for line in map(json.loads, (workdir / "train.jsonl").open())
                   for name, number in line.items() if name.startswith("row/"))


if __name__ == "__main__":
    print("compilations are kept in", conftest.CACHE)  # its import set the environment
    with tempfile.TemporaryDirectory() as place:
        place = Path(sys.argv[1]) if sys.argv[1:] else Path(place)
        for name, run_it in (("flips", flips), ("kills", kills)):
            shutil.rmtree(place / name, ignore_errors=True)
            (place / name).mkdir(parents=True)
            print(name, run_it(place / name), flush=True)
