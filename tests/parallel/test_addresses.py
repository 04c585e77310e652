"""Where process 0 is: wrong addresses are named before anything waits for them."""

import os
import socket
import subprocess
import sys

import pytest
from commands import ROOT

from mplug2_jax.parallel import addresses


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("coordinator, process, message", [
    ("localhost", 1, "--coordinator=localhost: expected HOST:PORT of process 0"),
    ("localhost:port", 1, "expected HOST:PORT"), (":80", 0, "expected HOST:PORT"),
    ("localhost:1", 2, "--process=2: expected 0 to 1, for --processes=2"),
    ("localhost:1", -1, "--process=-1: expected 0 to 1"),
])
def test_wrong_addresses_and_numbers_are_one_line(coordinator, process, message):
    with pytest.raises(addresses.HostError) as raised:
        addresses.given_address(coordinator, 2, process)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_all_three_are_needed_or_none():
    assert addresses.given_address("localhost:1", 2, 1) == ("localhost:1", 2, 1)
    assert addresses.given_address(None, None, None) is None
    with pytest.raises(addresses.HostError, match="--processes is missing: outside TPU pods"):
        addresses.given_address("localhost:1", None, 1)


def test_nobody_who_answers_and_a_port_in_use_are_told():
    with pytest.raises(addresses.HostError, match="process 0 did not answer there in 0.1 s"):
        addresses.check_address(f"localhost:{free_port()}", 1, 0.1)
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        addresses.check_address(f"localhost:{port}", 1, 1)  # somebody answers
        with pytest.raises(addresses.HostError, match=f"cannot listen at port {port}"):
            addresses.check_address(f"localhost:{port}", 0, 1)
    addresses.check_address(f"localhost:{free_port()}", 0, 1)


def test_a_slurm_step_of_several_tasks_is_a_cluster(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "TPU_ML_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert not addresses.in_cluster()
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
    for tasks, found in (("1", False), ("2", True)):
        monkeypatch.setenv("SLURM_NTASKS", tasks)
        assert addresses.in_cluster() == found


def test_a_tpu_without_a_cluster_is_told_how_to_run_alone():
    """As on machines that are lent by the hour: JAX finds chips, and nobody says who else there is.
    """
    code = ("from mplug2_jax.parallel import hosts\n"
            "try: hosts.join(None, None, None, 20, 30)\n"
            "except hosts.HostError as error: print(error)\n")
    environment = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, cwd=ROOT,
                          env=environment | {"TPU_ML_PLATFORM": "JAX", "PYTHONPATH": str(ROOT)})
    assert done.stdout.startswith("the processes cannot come together: ") and done.stdout.endswith(
        ": give --processes=1 for this process alone, or all of --coordinator, --processes and "
        "--process\n"), done.stderr
