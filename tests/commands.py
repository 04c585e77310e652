"""Commands as users type them, and what a run logged."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from forks import Fork

ROOT = Path(__file__).parents[1]


def seen(devices=1, path=ROOT):
    """An environment of so many simulated devices, and of modules in `path`."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}"}


def command(*arguments, devices=1, path=ROOT):
    """Arguments of a subprocess that sees so many simulated devices, and modules in `path`."""
    return dict(args=[sys.executable, *map(str, arguments)], cwd=ROOT, env=seen(devices, path),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*arguments, devices=1, status=0, path=ROOT, timeout=600):
    """Runs to the end and returns what was printed."""
    process = Fork(arguments, seen(devices, path))
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == status, output[-9000:]
    return output


def losses(workdir):
    """Every logged value that a step computes, by step."""
    lines = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
    timing = re.compile("_per_second$|^(mfu|padding|step|time|goodput)$"  # since the line before
                        "|^(seconds|lost|memory|slowest)/")
    return {line["step"]: {k: v for k, v in line.items() if not timing.search(k)}
            for line in lines}
