"""Damage and kills, many of them: each function does it for real and returns what it counted.

    PYTHONPATH=.:tests python tests/torture/saves.py [FOLDER]
"""

import json
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path

import conftest
import jax
import numpy as np
import saves_script
from commands import ROOT, run, seen
from forks import Fork

from mplug2_jax.checkpoints import CheckpointError, Checkpoints, manifest
from mplug2_jax.checkpoints.choice import stored
from mplug2_jax.parallel.mesh import make_mesh

STEPS = 40  # of the run that is killed


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
    files = [path for path in (folder / "1").rglob("*") if path.is_file()]
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
      `kills`; of these `inside` a save; `half` checkpoints that were chosen, `lost` and `doubled`
      steps of 8 samples a stream, `differing` arrays of the last checkpoint, against a run that
      nothing interrupts; `damaged`: warnings of damaged checkpoints.
    """
    data = folder / "data"
    sizes = {f"{kind}_{part}": size for kind in ("video", "image") for part, size in
             (("train", 24), ("validation", 8), ("test", 8))}
    run("-m", "data.prepare", "moving_digits", f"--out={data}", "--processes=1",
        "--text_train=200", "--text_validation=8",
        *(f"--{name}={size}" for name, size in sizes.items()))
    run(*_train(data, folder / "straight"))
    workdir, draw = folder / "killed", random.Random(seed)
    checkpoints = workdir / "checkpoints"
    counts = dict(kills=0, inside=0, half=0, damaged=0)
    newest = max(stored(folder / "straight" / "checkpoints"))
    written = sum(path.stat().st_size for path in
                  (folder / "straight" / "checkpoints" / str(newest)).rglob("*") if path.is_file())
    while counts["kills"] < count:
        # A life writes up to two checkpoints, one on average: the run ends after its last kill.
        most = int(draw.uniform(0.02, 2.0) * written)
        good = {step for step in (stored(checkpoints) if checkpoints.is_dir() else [])
                if not manifest.damage(checkpoints / str(step))}
        process = Fork(["tests/killed.py", checkpoints, most, *_train(data, workdir)],
                       seen(path=ROOT))
        output = process.communicate(timeout=900)[0]
        _check_start(output, good, counts)
        assert process.returncode == -9, output[-3000:]
        counts["kills"] += 1
        counts["inside"] += any("saving" in path.name for path in checkpoints.iterdir())
    good = {step for step in stored(checkpoints)}
    _check_start(run(*_train(data, workdir)), good, counts)
    return counts | _compared(folder / "straight", workdir)


def _train(data, workdir):
    return ("train.py", "--config=tests/e2e_config.py:start", f"--config.data.root={data}",
            f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}",
            f"--config.optimizer.steps={STEPS}", "--config.checkpoint_every=1",
            "--config.keep_checkpoints=2")


def _check_start(output, good, counts):
    """Counts what a life says of its start."""
    started = re.findall(r"going on from step (\d+)", output)
    counts["half"] += sum(int(step) not in good for step in started)
    counts["half"] += bool(good and not started and "step 1/" in output)
    counts["damaged"] += output.count("is damaged")


def _compared(straight, killed):
    """The ends of two runs."""
    logs = [[json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
            for workdir in (straight, killed)]
    steps = [[line["step"] for line in log] for log in logs]
    ends, mesh = [], make_mesh(1, 1, 1, jax.devices()[:1])
    for workdir in (straight, killed):
        source = Checkpoints(workdir / "checkpoints")
        shapes = {item: source.shapes(item) for item in ("params", "rest")}
        arrays = [source.load_params(shapes["params"], mesh)]
        ends.append((source.meta()["samples"], jax.device_get(jax.tree.leaves(arrays))))
    assert ends[0][0] == ends[1][0], "samples"
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]
    return dict(lost=len(set(steps[0]) - set(steps[1])), doubled=len(steps[1]) - len(set(steps[1])),
                differing=sum(a.tobytes() != b.tobytes()
                              for a, b in zip(ends[0][1], ends[1][1], strict=True)))


if __name__ == "__main__":
    print("compilations are kept in", conftest.CACHE)  # its import set the environment
    with tempfile.TemporaryDirectory() as place:
        place = Path(sys.argv[1]) if sys.argv[1:] else Path(place)
        for name, run_it in (("flips", flips), ("kills", kills)):
            shutil.rmtree(place / name, ignore_errors=True)
            (place / name).mkdir(parents=True)
            print(name, run_it(place / name), flush=True)
