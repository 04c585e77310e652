"""Plans the training step of every config for slices of TPUs: `benchmarks/plans.json`.

    python -m benchmarks.plans          (make plans)

Every config of `configs/` that trains on real data is compiled, size large, for `v5e:4x4`, and of
pretraining for `v5e:16x16`, by the planner (docs/scaling.md, "Planning"), at level O1: what a
device holds, the seconds that a step takes at least, and the hours of the run by it. Nothing is
read: a file of classes stands for as many names as the data set has. Configs whose steps are the
same program share a plan. One that does not fit says so. Interrupted, the same command goes on.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks.demo_tasks import write
from docs.make import configs

OUT = Path("benchmarks/plans.json")
PRETRAINING, FINE_TUNING = "v5e:16x16", "v5e:4x4"
# By folder of the data: how many names its file of classes has.
CLASSES = {"class_folders": 1000, "imagenet2012": 1000, "kinetics400": 400, "kinetics600": 600,
           "kinetics700": 700, "kinetics710": 710, "ssv2": 174, "flowers102": 102,
           "oxford_flowers102": 102}


def planned() -> dict[str, ConfigDict]:
    """The configs that train on published data, by name."""
    return {name: config for name, config in configs()
            if not name.startswith(("demo", "own")) and config.data.streams}


def topology(name: str) -> str:
    """The slice that a config is planned for."""
    return PRETRAINING if "pretrain" in name else FINE_TUNING


def with_classes(config: ConfigDict) -> ConfigDict:
    """The config, a file of classes replaced by as many names."""
    if isinstance(config.task.get("classes"), str) and "/" in config.task.classes:
        count = CLASSES[Path(config.data.root).name]
        with config.ignore_type():
            config.task.classes = tuple(f"class {n}" for n in range(count))
    return config


def program(name: str, config: ConfigDict) -> str:
    """Equal for configs whose steps are the same program, but for constants."""
    streams = {key: {k: v for k, v in stream.items() if k not in ("split", "root", "shuffle")}
               for key, stream in config.data.streams.items()}
    task = config.task.to_dict()
    if "classes" in task:
        task["classes"] = len(task["classes"])
    said = json.dumps([topology(name), task, config.model.to_dict(), config.mesh.to_dict(),
                       config.optimizer.ema_decay > 0, list(config.optimizer.frozen), streams],
                      sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def plan(name: str) -> dict[str, Any]:
    """The plan of a config, in this process."""
    import jax

    from mplug2_jax.planning.chips import GIB
    from mplug2_jax.planning.plan import DoesNotFit, compile_plan
    from mplug2_jax.planning.topology import parse_topology

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_optimization_level", "O1")
    config = with_classes(planned()[name])
    try:
        found = compile_plan(config, parse_topology(topology(name)))
    except DoesNotFit as error:
        return {"fits": False, "used_gib": round(error.used / GIB, 2),
                "of_gib": round(error.limit / GIB, 2)}
    return {"fits": True, "used_gib": round(found.peak / GIB, 2),
            "of_gib": round(found.chip.hbm / GIB, 2), "parameters": found.parameters,
            "step_seconds_at_least": round(found.seconds, 4), "bound_by": found.bound,
            "model_flops": float(f"{found.model_flops:.4g}"),
            "compile_seconds": round(found.compile_seconds, 1)}


def separate(name: str) -> dict[str, Any]:
    """The same in a process of its own, which gives its memory back."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.plans", f"--one={name}"],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help="print the plan of this config alone")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(plan(options.one)))
        return
    kept = json.loads(options.out.read_text()) if options.out.is_file() else {"configs": {}}
    done: dict[str, Any] = {}
    known: dict[str, dict[str, Any]] = {}
    for name, config in planned().items():
        same = program(name, with_classes(config))
        earlier = kept["configs"].get(name)
        if same not in known:
            known[same] = (earlier["plan"] if earlier and earlier["program"] == same
                           else separate(name))
        steps = config.optimizer.steps
        seconds = known[same].get("step_seconds_at_least")
        done[name] = {"topology": topology(name), "steps": steps, "plan": known[same],
                      "hours_at_least": None if seconds is None else round(
                          steps * seconds / 3600, 2), "program": same}
        print(f"{name:40} {topology(name):10} {known[same]}", flush=True)
        write(options.out, {"command": "make plans", "level": "O1",
                            "configs": kept["configs"] | done})
    write(options.out, {"command": "make plans", "level": "O1", "configs": done})


if __name__ == "__main__":
    main()
