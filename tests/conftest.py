"""Eight simulated devices for every test, set before JAX starts, and a cache of compilations."""

import fcntl
import gc
import importlib.metadata
import os
import signal
import tempfile
from pathlib import Path

import pytest

# Compiling is what the tests spend most time on; tiny programs need no optimising, and the older
# emitter of fused loops makes half the work for LLVM. Later versions end at a flag that they lack.
FLAGS = ["--xla_force_host_platform_device_count=8"]
if importlib.metadata.version("jaxlib") < "0.11":
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
for flag in FLAGS:
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# As `filterwarnings` of pyproject.toml, for the commands that tests run.
os.environ.setdefault("PYTHONWARNINGS",
                      "error:jax:DeprecationWarning,error:flax:DeprecationWarning")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
CACHE = Path(__file__).parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
# A process compiles a hundred programs of one operation each: read again, they take half the time.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Else the cache's path, for the tuning of GPUs, is part of each key: no other tree could use it.
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")

# In the background of a shell's script, under nohup or some launchers, they are ignored or blocked,
# and would be by the runs that tests start.
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
for number in SIGNALS:
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT
                      else signal.SIG_DFL)

importlib.import_module("quick_params").read_quickly()  # it imports JAX
# As `launch.main` does.
gc.set_threshold(20_000, 20, 20)

# Those that take longest, longest first.
LONGEST = [Path(__file__).parent / f"{name}.py" for name in (
    "parallel/test_hosts", "tasks/test_equal_steps", "configs/test_walks",
    "scripts/test_end_to_end", "convert/test_verify", "docs/test_examples",
    "storage/test_bucket_run", "training/test_older_checkpoints", "scripts/test_stops",
    "planning/test_aot", "convert/test_convert", "convert/test_convert_command",
    "scripts/test_end_to_end_tasks", "scripts/test_elastic", "scripts/test_predict_jobs",
    "evaluation/test_evaluation_checks", "parallel/test_sharding", "tasks/test_compositions",
    "objectives/test_momentum")]
assert all(path.exists() for path in LONGEST), "conftest.LONGEST names a file that is gone"


def pytest_collection_modifyitems(items):
    """Long files first, then others of slow tests: no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {path: place for place, path in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path, len(LONGEST)), item.path not in slow))


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """The folder of a corpus of a few records, which all workers share: nobody writes there."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(base / "miniature.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return importlib.import_module("torture.stops").prepare(base / "miniature")


@pytest.fixture
def open_path():
    """A folder that other users may look into, as they may not into pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
