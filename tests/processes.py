"""Several processes of one run on this machine."""

import socket
import time

from commands import ROOT, seen
from forks import Fork


def start(*arguments, devices=4, **flags):
    """One process of several that has so many simulated devices."""
    flags = {"join_timeout": 120, "lost_after": 60} | flags
    return Fork([*arguments, *(f"--{k}={v}" for k, v in flags.items())],
                seen(devices, ROOT / "tests"))


def start_all(*arguments, each=({}, {}), **flags):
    """A process for each entry of `each`, which holds flags of its own; all can reach another."""
    with socket.create_server(("", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    return [start(*arguments, **{"coordinator": address, "processes": len(each),
                                 "process": number} | flags | own)
            for number, own in enumerate(each)]


def end(processes, timeout=900):
    """Outputs and exit codes; none is left running."""
    try:
        return ([process.communicate(timeout=timeout)[0] for process in processes],
                [process.returncode for process in processes])
    finally:
        for process in processes:
            process.kill()


def error_line(output):
    """The one line that says what happened."""
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    return line


def wait_for(condition, processes, timeout=900):
    """Until the condition holds; no process may end before."""
    deadline = time.monotonic() + timeout
    while not condition():
        ended = [process for process in processes if process.poll() is not None]
        assert not ended, ended[0].communicate()[0][-5000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
