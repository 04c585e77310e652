"""Several processes of one command on this machine: their shares, what they print, how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT

from mplug2_jax.contracts import exits
from mplug2_jax.parallel import local
from mplug2_jax.parallel.addresses import HostError

# A process that says who it is and then does what it is told, by its number.
SCRIPT = """
import os, signal, sys, time
own = int(os.environ["JAX_PROCESS_ID"])
does = dict(one.split("=") for one in sys.argv[1:]).get(str(own), "waits")
def end(number, _):
    print("heard", signal.Signals(number).name)
    sys.exit(4)
if does != "deaf":
    signal.signal(signal.SIGTERM, end)
print("begun", os.getpid())
if does.isdigit():
    sys.exit(int(does))
if does == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stderr.write("half a line")
sys.stderr.flush()
time.sleep(60)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def ended(script, *does, processes=3, patience=0.5):
    """The exit code of a run in which each does so."""
    return local.run([sys.executable, str(script), *does], local.shares(processes), patience)


@pytest.fixture(autouse=True)
def own_signals():
    """`run` takes the signals of its process."""
    before = {number: signal.getsignal(number) for number in local.ALL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("does, code", [
    (("0=0", "1=0", "2=0"), exits.DONE), (("0=4", "1=4", "2=4"), exits.STOPPED),
    (("0=0", "1=6", "2=0"), exits.SKIPPED),
    (("0=3", "1=7", "2=3"), exits.DIFFER)])  # who lost another says nothing of the cause
def test_the_exit_code_is_the_cause_s(script, capsys, does, code):
    assert ended(script, *does) == code
    shown = capsys.readouterr()
    assert sorted(line.split()[0] for line in shown.out.splitlines()) == ["[0]", "[1]", "[2]"]
    assert ("error: process" in shown.err) == (code != 0)


def test_where_one_is_killed_the_others_do_not_stay(script, capsys):
    began = time.monotonic()
    assert ended(script, "0=dies", "1=deaf", "2=deaf") == exits.by_signal(signal.SIGKILL)
    assert time.monotonic() - began < 30
    said = capsys.readouterr().err
    assert "error: process 0 ended with code 137: ended by signal 9" in said
    assert "[1] half a line\n" in said and "were killed" in said


def runs(pid):
    """Whether a process is there, and is more than what its parent has not asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(script, *does, processes=2):
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from mplug2_jax.parallel import local; "
         "sys.exit(local.main())", f"--processes={processes}", "--", str(script), *does],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_signal_goes_to_all(script):
    launcher = start(script)
    lines = [launcher.stdout.readline() for _ in range(2)]
    assert sorted(line[:9] for line in lines) == ["[0] begun", "[1] begun"]
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == exits.STOPPED
    assert output.count("heard SIGTERM") == 2  # each of them once


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_no_process_outlives_the_launcher(script):
    launcher = start(script)
    begun = [int(launcher.stdout.readline().split()[-1]) for _ in range(2)]
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + 30
    while any(map(runs, begun)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_has_its_share(monkeypatch):
    monkeypatch.delenv("TPU_ML_PLATFORM", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False)
    found = local.shares(2)
    assert [one.environment["CUDA_VISIBLE_DEVICES"] for one in found] == ["4,5", "6,7"]
    assert len({one.environment["JAX_COORDINATOR_ADDRESS"] for one in found}) == 1
    if sys.platform == "linux":
        assert [one.cores for one in found] == [(0, 1), (2, 3, 4)]
        assert local.shares(8, devices=1)[0].cores == ()  # not one for each
    with pytest.raises(HostError, match="--processes=3: expected a divisor of 4, the GPUs"):
        local.shares(3)
    simulated = local.shares(3, devices=2)[2].environment
    assert simulated["JAX_PLATFORMS"] == "cpu" and simulated["JAX_PROCESS_ID"] == "2"
    assert simulated["XLA_FLAGS"].endswith("--xla_force_host_platform_device_count=2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TPU_ML_PLATFORM", "Cloud")
    with pytest.raises(HostError, match="one process for all of its chips"):
        local.shares(2)


@pytest.mark.parametrize("arguments, said", [
    (["--processes=2"], "no command"), (["--processes=x", "--", "train.py"], "--processes"),
    (["--", "train.py"], "--processes"), (["--processes=0", "train.py"], "at least 1 process")])
def test_a_wrong_command_is_one_line(arguments, said, capsys):
    try:
        code = local.main(arguments)
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr().err
    assert code == exits.WRONG and said in shown and shown.count("\n") == 1
