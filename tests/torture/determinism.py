"""The same seed on the same mesh: the same bits, however the data is prepared.

    PYTHONPATH=.:tests:tests/torture python tests/torture/determinism.py /tmp/determinism
"""

import itertools
import json
import shutil
import sys
from pathlib import Path

import stops
from commands import ROOT, losses, run

STEPS = 200
THREADS, WORKERS = (1, 2, 4), (0, 1, 2)
CONFIG = "tests/steady_config.py"


def bits(folder, threads=THREADS, workers=WORKERS, steps=STEPS):
    """A run with each number of threads and of workers, against the first of them.

    Returns:
      `runs`; `steps` of each; `arrays` of a state; `differing`: runs of which a logged loss, or a
      bit of an array at the end, is another.
    """
    folder = Path(folder)
    data = stops.prepare(folder / "data")
    first, differing = None, 0
    for own in itertools.product(threads, workers):
        workdir = folder / "threads_{}_workers_{}".format(*own)
        shutil.rmtree(workdir, ignore_errors=True)
        run(*stops.train(data, workdir, f"--config.optimizer.steps={steps}",
                         f"--config.data.threads={own[0]}", f"--config.data.workers={own[1]}",
                         config=CONFIG), path=ROOT / "tests")
        assert stops.logged(workdir) == list(range(1, steps + 1))
        found = losses(workdir), {name: (x.dtype, x.shape, x.tobytes())
                                  for name, x in stops.parameters(workdir).items()}
        first = first or found
        differing += found != first
    return {"runs": len(threads) * len(workers), "steps": steps, "arrays": len(first[1]),
            "differing": differing}


if __name__ == "__main__":
    found = bits(sys.argv[1])
    print(json.dumps(found))
    sys.exit(bool(found["differing"]))
