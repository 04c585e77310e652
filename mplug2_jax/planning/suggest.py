"""Finds how to compute a config's step on named hardware: mesh, remat, micro-batches.

    python -m mplug2_jax.planning suggest --config=configs/msrvtt_caption.py:large \
        --hardware=v5e:4x4

The batches, and so the learning rates, stay the config's. Estimates from shapes choose what is
compiled, which is said line by line; then come the flags to add to the command of the run. Exit
code 1 where nothing fits, with the reason in one line.
"""

import jax
from absl import flags
from ml_collections import ConfigDict

from mplug2_jax import launch
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.planning.estimate import needs
from mplug2_jax.planning.plan import Plan, compile_plan, gib
from mplug2_jax.planning.search import FITTED, NothingFits, examples, fit, meshes
from mplug2_jax.planning.topology import Topology, devices_of, parse_topology


def suggest(config: ConfigDict, topology: Topology) -> tuple[ConfigDict, Plan]:
    """The config, computed so that it fits, and its plan.

    Raises:
      NothingFits: on no mesh.
    """
    mesh = make_mesh(**next(meshes(config, topology)), devices=devices_of(topology))
    return fit(config, topology, needs(config, FITTED, mesh),
               lambda trial: compile_plan(trial, topology))


def overrides(config: ConfigDict, found: ConfigDict) -> list[str]:
    """The flags that make a config the found one: what differs, of mesh, remat and accumulation."""
    sections = {"mesh": (config.mesh, found.mesh),
                "model.remat": (config.model.remat, found.model.remat),
                "task": (config.task, found.task)}
    return [f"--config.{section}.{key}={value}" for section, (old, new) in sections.items()
            for key, value in new.items() if value != old[key]]


def main() -> None:
    given = flags.FLAGS
    jax.config.update("jax_platforms", "cpu")  # nothing runs; a TPU here would only be locked
    jax.config.update("jax_optimization_level", given.optimization_level)
    topology = parse_topology(given.hardware, "--hardware")
    try:
        found, plan = suggest(given.config, topology)
    except NothingFits as error:
        print(error)
        raise SystemExit(1) from None
    chip, step = plan.chip, found.task.get("accumulation", 1)
    print("add     " + " ".join(overrides(given.config, found) or ["nothing"]))
    if chip.is_gpu:  # else JAX takes 75 % of it
        print("before  XLA_PYTHON_CLIENT_MEM_FRACTION=0.92")
    print(f"peak    {gib(plan.peak)} of {gib(chip.hbm)}, {plan.peak / chip.hbm:.0%}; "
          f"{examples(found, plan.mesh, step)} a device at once")
    print(f"step    at least {plan.seconds:.3f} s, by {plan.bound}; MFU at most {plan.mfu:.0%}")


def command() -> None:
    """Defines the flags and runs."""
    launch.define_config("The run's config.")
    flags.DEFINE_string("hardware", None, "Chips, as v5e:4x4, 2xv5e:16x16 (two slices), or GPUs, "
                                          "as h100:8.")
    flags.DEFINE_enum(
        "optimization_level", "O1", ["O1", "O2"],
        "How hard the compiler tries: O2 as for train.py, O1 in a tenth of the time.")
    flags.mark_flags_as_required(["config", "hardware"])
    launch.main(main)
