"""Eight simulated devices for every test, set before JAX starts, and a cache of compilations."""

import gc
import importlib.metadata
import os
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
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
CACHE = Path(__file__).parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
# A process compiles a hundred programs of one operation each: read again, they take half the time.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Else the cache's path, for the tuning of GPUs, is part of each key: no other tree could use it.
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")

importlib.import_module("quick_params").read_quickly()  # it imports JAX
# As `launch.main` does.
gc.set_threshold(20_000, 20, 20)

# Those that take longest, longest first.
LONGEST = [Path(__file__).parent / f"{name}.py" for name in (
    "configs/test_walks", "parallel/test_hosts", "scripts/test_end_to_end",
    "tasks/test_equal_steps", "docs/test_examples", "training/test_older_checkpoints",
    "planning/test_aot", "convert/test_verify", "scripts/test_end_to_end_tasks",
    "tasks/test_compositions", "objectives/test_momentum", "parallel/test_sharding",
    "benchmarks/test_coverage", "configs/test_zero_shot_rows", "scripts/test_predict",
    "scripts/test_checked_first")]
assert all(path.exists() for path in LONGEST), "conftest.LONGEST names a file that is gone"


def pytest_collection_modifyitems(items):
    """Long files first, then others of slow tests: no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {path: place for place, path in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path, len(LONGEST)), item.path not in slow))


@pytest.fixture
def open_path():
    """A folder that other users may look into, as they may not into pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
