"""Commands as users type them, and what a run logged."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command(*arguments, devices=1, path=ROOT):
    """Arguments of a subprocess that sees so many simulated devices, and modules in `path`."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}"}
    return dict(args=[sys.executable, *map(str, arguments)], cwd=ROOT, env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*arguments, devices=1, status=0, path=ROOT):
    """Runs to the end and returns what was printed."""
    done = subprocess.run(**command(*arguments, devices=devices, path=path), timeout=600)
    assert done.returncode == status, done.stdout[-9000:]
    return done.stdout


def losses(workdir):
    """Every logged value that a step computes, by step."""
    lines = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
    timing = re.compile("_per_second$|^mfu$|^padding$|^step$")  # since the line before
    return {line["step"]: {k: v for k, v in line.items() if not timing.search(k)}
            for line in lines}
