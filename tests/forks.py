"""Processes that need not import what all of them do: forked from one that has imported it.

`Fork` is to a test what `subprocess.Popen` is, for Python's scripts and modules. The process that
they come of (this file as a script) has imported JAX and the libraries but used no device, run no
script and started no thread. There are two of them, used in turn, of other hash seeds, and NumPy's
own seed is drawn again: two runs have nothing in common by the order of a set or by such a seed.
"""

import functools
import gc
import importlib
import itertools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDING = ("XLA_FLAGS", "PYTHONPATH")  # what a process may be given that others have not
COMMON = ("jax", "numpy", "flax.linen", "optax", "orbax.checkpoint", "clu.parameter_overview",
          "tensorboardX", "av", "PIL.Image", "sentencepiece", "configs.checks", "data.pipeline",
          "mplug2_jax.evaluation", "mplug2_jax.launch", "mplug2_jax.training.step",
          "mplug2_jax.planning.flops", "mplug2_jax.model.decoding")
_turn = itertools.count()


class Fork:
    """A Python process of these arguments, a script or `-m module` first, its output one pipe.

    Args:
      arguments: of the command line.
      environment: of the process; of JAX's variables only `ENDING` may differ from this one's.
      cwd: its folder.
      apart: whether what it says as errors goes into a pipe of its own, `stderr`.
      group: whether it leads a group of processes, which are those that it starts.
    """

    def __init__(self, arguments, environment, cwd=ROOT, apart=False, group=False):
        odd = {name for name in {*environment, *os.environ}
               if name.startswith(("JAX", "XLA")) and environment.get(name) != os.environ.get(name)}
        assert odd <= {*ENDING}, f"read when JAX is imported: {odd}"
        request = json.dumps(
            [list(map(str, arguments)), dict(environment), str(cwd), group]).encode()
        given, self.stdin = _pipe("w")
        self.stdout, told = _pipe("r")
        self._status, ended = _pipe("r")
        self.returncode, self.stderr = None, None
        fds = [given, told, ended]
        if apart:
            self.stderr, warned = _pipe("r")
            fds.append(warned)
        socket.send_fds(_server(next(_turn) % 2), [len(request).to_bytes(8, "big") + request], fds)
        for fd in fds:
            os.close(fd)
        self.pid = int(self._status.readline())

    def poll(self):
        """The exit code, minus the signal that ended it; None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def communicate(self, timeout=None):
        """All that it still writes, to its end: `(output, errors)`, None where they are no pipe.

        Raises:
          subprocess.TimeoutExpired: it takes longer.
        """
        self.stdin.close()
        pipes, said = [pipe for pipe in (self.stdout, self.stderr) if pipe], {}
        readers = [threading.Thread(target=lambda pipe=pipe: said.update({pipe: pipe.read()}),
                                    daemon=True) for pipe in pipes]
        for reader in readers:
            reader.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        for reader in readers:
            reader.join(deadline and max(deadline - time.monotonic(), 0))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        if self.returncode is None:
            self.returncode = int(self._status.readline())
        for pipe in pipes:
            pipe.close()
        return said[self.stdout], said.get(self.stderr)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def finished(arguments, environment, cwd=ROOT, timeout=300, given=""):
    """Runs it to its end, as `subprocess.run` does, what is `given` on its standard input.

    Returns:
      `subprocess.CompletedProcess` with `stdout` and `stderr`, which are apart.
    """
    process = Fork(arguments, environment, cwd, apart=True)
    try:
        process.stdin.write(given)
        output, errors = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def _pipe(mode):
    """This side of a pipe as a text file, the other's end as a descriptor, in the order of pipe."""
    ours, theirs = os.pipe() if mode == "r" else os.pipe()[::-1]
    file = open(ours, mode, buffering=1 if mode == "w" else -1)
    return (file, theirs) if mode == "r" else (theirs, file)


@functools.cache
def _server(number):
    """The socket of a process to fork from; it ends when this one does."""
    ours, theirs = socket.socketpair()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], cwd=ROOT,
                     env=environment | {"PYTHONHASHSEED": str(number + 1)},
                     pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                     stdout=subprocess.DEVNULL)
    theirs.close()
    return ours


def _serve(requests):
    """Forks at each request; in the child, returns what it was asked. Tells how children end.

    Those that are left when nobody can ask any more end, too, also where they stand still.
    """
    running = {}  # the descriptor to tell, by process
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    while True:
        ready = select.select([requests, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            for pid in list(running):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    _tell(running.pop(pid), os.waitstatus_to_exitcode(status))
        if requests not in ready:
            continue
        size, fds, *_ = socket.recv_fds(requests, 8, 4)
        if not size:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        request = requests.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
        if pid := os.fork():
            running[pid] = fds.pop(2)
            for fd in fds:
                os.close(fd)
            os.write(running[pid], f"{pid}\n".encode())
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for old, new in zip((fds[0], fds[1], fds[-1] if fds[3:] else fds[1]), range(3),
                            strict=True):
            os.dup2(old, new)
        for fd in {*fds, woken, wake, requests.detach(), *running.values()}:
            os.close(fd)
        return json.loads(request)


def _tell(fd, code):
    try:
        os.write(fd, f"{code}\n".encode())
    except BrokenPipeError:  # nobody asks any more
        pass
    os.close(fd)


def _become(arguments, environment, cwd, group, path):
    """Runs the command as Python would, with `path` behind what the environment adds."""
    if group:
        os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    module = arguments[0] == "-m"
    first = cwd if module else os.path.dirname(os.path.abspath(arguments[0]))
    added = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [first, *added, *path]
    sys.argv[:] = arguments[module:]
    importlib.invalidate_caches()
    sys.modules["numpy"].random.seed()
    if module:
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(os.path.abspath(arguments[0]), run_name="__main__")


if __name__ == "__main__":
    importlib.import_module("quick_params").read_quickly()  # it lies here
    path = sys.path[1:]
    sys.path[0] = str(ROOT)
    for name in COMMON:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a thread would be lost"  # BLAS starts its own again
    gc.freeze()
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))), path)
