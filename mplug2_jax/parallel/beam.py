"""Jobs spread over the workers of an Apache Beam runner.

Beam is an optional requirement (`requirements/beam.txt`). What the jobs read and write must be seen
by all workers under the same paths, and the workers must have this project installed.
"""

import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mplug2_jax.contracts import exits
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.parallel.ending import give_up

_WORKER = "run_worker"  # the thread in which DirectRunner waits for one of its processes
_made: dict[bytes, Callable[[Any], Any]] = {}  # of this process, however many threads work in it
_lock = threading.Lock()


def run(make: Callable[[], Callable[[Any], Any]], jobs: Sequence[Any], runner: str,
        options: Sequence[str]) -> None:
    """Does all jobs; each is one element, so that a runner spreads and retries them singly.

    A job may come twice, and on two workers at once. DirectRunner does not retry: where one of its
    processes is killed, this one ends with a line and `exits.LOST`, for it would wait for ever.

    Args:
        make: called once in each process that works; gives what does a job. It and the jobs are
            of a module, as what is pickled must be.
        jobs: what it is called with.
        runner: name of a Beam runner, such as DirectRunner.
        options: the runner's own, as on its command line: `['--direct_num_workers=2', ...]`.

    Raises:
        DataError: Beam is not installed, or a job failed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise DataError(
            "--beam_runner needs Apache Beam: pip install -r requirements/beam.txt"
        ) from error
    made = pickle.dumps(make)
    try:
        with _watched(), beam.Pipeline(options=PipelineOptions(options, runner=runner)) as pipeline:
            _ = (
                pipeline
                | "jobs" >> beam.Create(jobs)
                # Without it a runner fuses creating and doing, on a single worker.
                | "spread" >> beam.Reshuffle()
                | "do" >> beam.Map(_do, made)
            )
    except RuntimeError as error:  # the whole trace of a worker is its message
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise DataError(f"a job on {runner} failed: {lines[-1].strip() if lines else error}; what "
                        "is done is kept, the same command goes on") from error


def _do(job: Any, make: bytes) -> Any:
    """Does a job, by what was made once in this process."""
    with _lock:
        if make not in _made:
            _made[make] = pickle.loads(make)()
    return _made[make](job)


@contextmanager
def _watched() -> Iterator[None]:
    """Within, the end of a process that DirectRunner has started ends this one."""
    usual = threading.excepthook

    def hook(what: Any) -> None:
        if what.thread is None or what.thread.name != _WORKER:
            usual(what)
            return
        give_up(exits.LOST, f"a worker of Beam was killed ({what.exc_value}): what is done is "
                "kept, the same command goes on")

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual
