"""How processes find each other: a cluster's own addresses, or the one of process 0 that is given.
"""

import os
import socket
import time


class HostError(ValueError):
    """Processes that cannot run together; the message says which, and what to do."""


def in_cluster() -> bool:
    """Whether JAX finds the addresses by itself: in a Slurm step of several tasks, on a TPU VM."""
    slurm = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID"} <= os.environ.keys()
    # JAX sets the second where it finds TPU chips.
    return slurm and int(os.environ.get("SLURM_NTASKS", 1)) > 1 or "TPU_ML_PLATFORM" in os.environ


def given_address(coordinator: str | None, processes: int | None, process: int | None,
                  ) -> tuple[str, int, int] | None:
    """The three if all are given; None where the cluster is asked for them.

    Raises:
      HostError: only some are given, or they are no address and place.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return None
    if coordinator is None or processes is None or process is None:
        raise HostError(f"{missing[0]} is missing: outside TPU pods and Slurm, a run of several "
                        f"processes needs all of {', '.join(given)}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise HostError(f"--coordinator={coordinator}: expected HOST:PORT of process 0")
    if not 0 <= process < processes:
        raise HostError(f"--process={process}: expected 0 to {processes - 1}, for "
                        f"--processes={processes}")
    return coordinator, processes, process


def check_address(coordinator: str, process: int, timeout: float) -> None:
    """Waits until process 0 listens at `coordinator`; on process 0, sees that it can.

    Raises:
      HostError: it cannot, or nothing answers there within `timeout` seconds.
    """
    if process == 0:
        port = coordinator.rpartition(":")[2]
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise HostError(f"--coordinator={coordinator}: process 0 cannot listen at port {port} "
                            f"({error.strerror}): give all processes another port") from error
        return
    deadline = time.monotonic() + timeout
    while True:
        try:
            reach(coordinator)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise HostError(
                    f"--coordinator={coordinator}: process 0 did not answer there in {timeout} s "
                    f"({error.strerror or error}): is it running, and is this its address?"
                ) from error
        time.sleep(0.5)


def reach(coordinator: str) -> None:
    """Connects once to `host:port`; OSError where nobody answers there."""
    host, _, port = coordinator.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
