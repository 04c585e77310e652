"""Plans a training run for TPUs or GPUs that are not there: memory, FLOPs, traffic, step time.

    python -m mplug2_jax.aot --config=configs/pretrain.py:large --topology=v5e:16x16 \
        --global_batch=32768

compiles the run's own step for that topology, with libtpu from PyPI; for GPUs, such as h100:8, in
the environment that `make plan-gpu` makes. Exit code 0 if it fits, 1 if
not (with the amount and the largest buffers), 2 for wrong flags or a wrong config.
"""

import jax
from absl import flags

from mplug2_jax import launch
from mplug2_jax.planning.plan import DoesNotFit, compile_plan, with_batch
from mplug2_jax.planning.search import search
from mplug2_jax.planning.topology import parse_topology


def main() -> None:
    given = flags.FLAGS
    jax.config.update("jax_platforms", "cpu")  # nothing runs; a TPU here would only be locked
    jax.config.update("jax_optimization_level", given.optimization_level)
    config, topology = given.config, parse_topology(given.topology)
    if given.global_batch:
        config = with_batch(config, given.global_batch)
    try:
        if given.search:
            start = max(stream.batch_size for stream in config.data.streams.values())
            config, plan = search(config, lambda trial: compile_plan(trial, topology),
                                  topology.size, start)
            print(f"--config.mesh.tensor={config.mesh.tensor} " + " ".join(
                f"--config.model.remat.{module}={policy}"
                for module, policy in sorted(config.model.remat.items())))
        else:
            plan = compile_plan(config, topology)
    except DoesNotFit as error:
        print(error)
        raise SystemExit(1) from None
    print(plan.table())
    if given.text:
        with open(given.text, "w") as file:
            file.write(plan.text)


def command() -> None:
    """Defines the flags and runs."""
    launch.define_config("The run's config.")
    flags.DEFINE_string("topology", None, "Chip and slice, as v5e:16x16, or GPUs, as h100:8; "
                                          "2xv5e:16x16 are two slices.")
    flags.DEFINE_integer(
        "global_batch", 0, "Examples a step of the largest stream, the others in proportion; 0 as "
        "the config has it.", lower_bound=0)
    flags.DEFINE_bool("search", False, "Look for the largest batch that fits, from "
                               "--global_batch on, with a mesh and remat for it.")
    flags.DEFINE_enum(
        "optimization_level", "O1", ["O1", "O2"],
        "How hard the compiler tries: O2 as for train.py, O1 in a tenth of the time.")
    flags.DEFINE_string("text", None, "File to write the compiled program's text to.")
    flags.mark_flags_as_required(["config", "topology"])
    launch.main(main)
