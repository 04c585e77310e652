"""What another user may not read or write ends each command before it works: root may do all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from raw_media import clip, put

from data.prepare.__main__ import main

ROOT = Path(__file__).parents[2]
OTHER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# Each command in a fork of one process that has imported what they need.
COMMANDS = """
import importlib, json, os, runpy, sys
sys.path[:0] = [".", "tests"]
import forks
for name in (*forks.COMMON, "pyarrow.parquet", "data.prepare", "configs.own"):
    importlib.import_module(name)
for command in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        module = command[0] == "-m"
        sys.argv = command[module:]
        run = runpy.run_module if module else runpy.run_path
        run(sys.argv[0], run_name="__main__", **({"alter_sys": True} if module else {}))
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("ended with code", code, file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_may_not_read_or_write_is_named_before_work_is_lost(open_path):
    if subprocess.run([*OTHER, "test", "-r", __file__], capture_output=True).returncode:
        pytest.skip("another user may not read this repository")
    for n in range(2):
        put(open_path / f"raw/{n}.mp4", clip(n))
    table = "path,caption,split\n0.mp4,a,train\n1.mp4,b,val\n"
    for name in ("open.csv", "closed.csv", "closed.parquet", "hidden/t.csv"):
        put(open_path / name, table)
    assert main(["table", f"--raw={open_path}/raw", f"--table={open_path}/open.csv",
                 f"--out={open_path}/own", "--processes=1"]) == 0
    put(open_path / "run/train.jsonl", '{"step": 1}')
    put(open_path / "shut/kept", "")
    (open_path / "out").mkdir()
    for name, mode in (("closed.csv", 0), ("closed.parquet", 0), ("hidden", 0), ("run", 0o777),
                       ("out", 0o777), ("shut", 0o755)):
        (open_path / name).chmod(mode)

    tables = ["-m", "data.prepare", "table", f"--raw={open_path}/raw"]
    training = ["train.py", "--config=configs/own.py:caption",
                f"--config.data.root={open_path}/own"]
    predicting = ["predict.py", "caption", f"{open_path}/raw/0.mp4"]
    right, kept = "give this user (uid 65534) the right to it", "; what is done is kept"
    commands = [
        *(([*tables, f"--table={open_path}/{name}", f"--out={open_path}/out"], 1,
           [f"{open_path}/{name}", "ermission denied", right + kept])
          for name in ("closed.csv", "closed.parquet", "hidden/t.csv")),
        ([*tables, f"--table={open_path}/open.csv", f"--out={open_path}/shut/new"], 1,
         [f"{open_path}/shut/new", "permission denied", right + kept]),
        ([*training, f"--workdir={open_path}/shut/run"], 2,
         [f"--workdir={open_path}/shut/run: permission denied; give a folder that can be written"]),
        ([*training, f"--workdir={open_path}/run"], 2,
         [f"--workdir={open_path}/run: train.jsonl is there and cannot be written to"]),
        ([*predicting, f"--checkpoint={open_path}/no", f"--out={open_path}/shut/lines.jsonl"], 2,
         [f"--out={open_path}/shut/lines.jsonl: permission denied; give another place"]),
        ([*predicting, f"--checkpoint={open_path}/hidden"], 2,
         [f"{open_path}/hidden", "permission denied"])]
    found = subprocess.run(
        [*OTHER, sys.executable, "-c", COMMANDS, json.dumps([one for one, *_ in commands])],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True,
        timeout=300)
    said = [line for line in found.stderr.splitlines() if line.startswith(("error:", "ended with"))]
    assert "Traceback" not in found.stderr and len(said) == 2 * len(commands), found.stderr
    for (command, code, words), line, ended in zip(commands, said[::2], said[1::2], strict=True):
        assert all(word in line for word in words), (command, line)
        assert ended == f"ended with code {code}", (command, line)
    assert (open_path / "run/train.jsonl").read_text() == '{"step": 1}'
    assert [path.name for path in (open_path / "shut").iterdir()] == ["kept"]
