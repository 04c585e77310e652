"""Every config trains from its dataset's raw files, as they are published: prepare, then train."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import listing
import pytest
from test_configs import COMPOSITIONS

from data.prepare.__main__ import main as prepare

ROOT = Path(__file__).parents[2]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What each training gave: {name: line of `train_miniatures.py`}."""
    sys.path.insert(0, str(ROOT / "tests/data"))
    from raw_miniatures import MINIATURES

    folder = tmp_path_factory.mktemp("configs")
    out = folder / "prepared"
    for dataset in sorted({listing.dataset(name) for name in COMPOSITIONS}):
        MINIATURES[dataset](folder / "raw" / dataset)
        assert prepare([dataset, f"--raw={folder}/raw/{dataset}", f"--out={out}",
                        "--processes=1"]) == 0
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{n}]" for n in range(100))]
    (out / "vocab.txt").write_text(
        "\n".join([*special, *LETTERS, *(f"##{letter}" for letter in LETTERS)]) + "\n")
    (ROOT / ".cache").mkdir(exist_ok=True)
    (folder / ".cache").symlink_to(ROOT / ".cache")  # compilations of the last time
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests/configs")))
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    done = subprocess.run(
        [sys.executable, ROOT / "tests/configs/train_miniatures.py", *COMPOSITIONS], cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": flags},
        capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_three_steps_from_the_raw_files(name, trained):
    line, (modules, heads) = trained[name], COMPOSITIONS[name]
    assert len(line["losses"]) == line["step"] == 3
    assert all(math.isfinite(loss) and loss > 0 for loss in line["losses"])
    assert line["losses"][2] != line["losses"][0]  # it moves, and is reported
    assert line["modules"] == sorted([*modules.split(), *["heads"] * bool(heads)])
    assert line["skipped"] == 0
    assert all(line["examples"].values())  # of every evaluation, and of its validation split
    assert len(line["examples"]) >= len(listing.make(name, "tiny").evals)
