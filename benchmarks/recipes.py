"""How every config fits named hardware, in sizes base and large: `benchmarks/recipes.json`.

    python -m benchmarks.recipes          (make plan-all, make plan-gpu)

For each config of `configs/` that trains on real data, and for each of `HARDWARE`, the mesh, remat
and micro-batches that `python -m mplug2_jax.planning suggest` finds, at level O1, with its peak; or
the reason why nothing fits. What was not compiled has an estimate from shapes, and says so. What is
compiled is what this environment has a compiler for: TPUs need libtpu, GPUs the CUDA plugin. Each
result is written as it comes; interrupted, the same command goes on. Until then, a step that fits
as the config has it is taken from `benchmarks/plans.json`.
"""

import argparse
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks import plans
from mplug2_jax.planning.chips import GIB
from mplug2_jax.planning.estimate import Needs, needs
from mplug2_jax.planning.search import FITTED, Candidate, NothingFits, guess
from mplug2_jax.planning.topology import Topology, gpu_compiler, parse_topology

OUT = Path("benchmarks/recipes.json")
HARDWARE = ("h100:1", "h200:1", "h100:8", "v5e:4x4", "v5e:16x16", "v5p:4x4x4", "v6e:8x8")
SIZES = ("large", "base")
# Compiled first, for they differ most: video, pairs, many pixels, text, pretraining.
FIRST = ("msrvtt_caption.py", "msrvtt_retrieval.py", "vqav2_qa.py", "glue_classification.py:cola",
         "kinetics_classification.py:kinetics400", "pretrain.py:image", "pretrain.py:joint",
         "coco_caption.py", "coco_retrieval.py")
PLAIN = Candidate(dict(data=1, fsdp=-1, tensor=1), "none", 1)


def config_of(name: str, size: str) -> ConfigDict:
    """A config of `plans.planned`, in a size."""
    file, _, choice = name.partition(":")
    module = importlib.import_module(f"configs.{file.removesuffix('.py')}")
    return plans.with_classes(module.get_config(",".join(filter(None, (choice, size)))))


def programs() -> dict[str, dict[str, list[str]]]:
    """By program, which does not depend on how it is computed, its size and its configs."""
    found: dict[str, dict[str, Any]] = {}
    names = plans.planned()
    for size in SIZES:
        for name in sorted(names, key=lambda name: FIRST.index(name) if name in FIRST
                           else len(FIRST)):
            key = plans.program(name, PLAIN.of(config_of(name, size)))
            found.setdefault(key, {"size": size, "configs": []})["configs"].append(name)
    return found


def compilable(topology: Topology) -> bool:
    """Whether its compiler is in this environment."""
    if topology.chip.is_gpu:
        return gpu_compiler()
    return importlib.util.find_spec("libtpu") is not None


def estimated(config: ConfigDict, topology: Topology, found: Needs) -> dict[str, Any]:
    """A recipe by shapes alone."""
    try:
        candidate, peak = guess(config, topology, found)
    except NothingFits as error:
        return {"by": "estimate", "why_not": str(error)}
    return {"by": "estimate", **how(candidate), "peak_gib": round(peak / GIB, 1),
            "of_gib": round(topology.chip.hbm / GIB, 2)}


def planned(names: list[str], hardware: str) -> dict[str, Any] | None:
    """A recipe that changes nothing: what `make plans` compiled of such a config, if that fits."""
    known = json.loads(plans.OUT.read_text())["configs"]
    for name in names:
        entry = known.get(name, {"topology": ""})
        if entry["topology"] != hardware:
            continue
        config = config_of(name, SIZES[0])
        if entry["program"] != plans.program(name, config):
            continue
        plan, topology = entry["plan"], parse_topology(hardware)
        if plan["fits"] and plan["used_gib"] <= topology.chip.usable / GIB:
            as_it_is = Candidate(dict(data=1, fsdp=topology.size, tensor=1),
                                 config.model.remat.vision, config.task.accumulation)
            return {"by": "plans", **how(as_it_is), "peak_gib": plan["used_gib"],
                    "of_gib": plan["of_gib"],
                    "step_seconds_at_least": plan["step_seconds_at_least"],
                    "bound_by": plan["bound_by"]}
    return None


def compiled(config: ConfigDict, topology: Topology) -> dict[str, Any]:
    """A recipe by the compiler, in this process."""
    import jax

    from mplug2_jax.planning.suggest import suggest

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_optimization_level", "O1")
    try:
        found, plan = suggest(config, topology)
    except NothingFits as error:
        return {"by": "compiler", "why_not": str(error)}
    chosen = Candidate(plan.mesh, found.model.remat.vision, found.task.get("accumulation", 1))
    return {"by": "compiler", **how(chosen),
            "peak_gib": round(plan.peak / GIB, 2), "of_gib": round(plan.chip.hbm / GIB, 2),
            "step_seconds_at_least": round(plan.seconds, 4), "bound_by": plan.bound,
            "mfu_at_most": round(plan.mfu, 3), "compile_seconds": round(plan.compile_seconds, 1)}


def how(candidate: Candidate) -> dict[str, Any]:
    """A candidate for the file; the mesh is data x fsdp x tensor."""
    return candidate._asdict() | {"mesh": "x".join(map(str, candidate.mesh.values()))}


def save(out: Path, found: dict[str, Any]) -> None:
    """Writes the file, a recipe a line, and replaces it in one step."""
    text = json.dumps({"command": "make plan-all", "level": "O1", "programs": found}, indent=1)
    lines = re.sub(r'\{\s+"by":[^{}]*\}', lambda one: " ".join(one[0].split()), text)
    part = out.with_suffix(".part")
    part.write_text(lines + "\n")
    os.replace(part, out)


def separate(name: str, size: str, hardware: str) -> dict[str, Any]:
    """`compiled` in a process of its own, which gives its memory back; with what was tried."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.recipes", "--one", name, size, hardware],
        capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} {size} {hardware}: {done.stderr[-3000:]}")
    *tried, recipe = done.stdout.splitlines()
    return json.loads(recipe) | {"tried": tried}


def update(out: Path, hardware: list[str], only: str, compiles: bool) -> None:
    """Estimates what has no recipe, then compiles what was not, the most telling first."""
    known = json.loads(out.read_text())["programs"] if out.is_file() else {}
    found = programs()
    kept = {key: entry | {"recipes": known.get(key, {}).get("recipes", {})}
            for key, entry in found.items()}

    for entry in kept.values():
        missing = [one for one in hardware if one not in entry["recipes"]]
        if missing:
            config = config_of(entry["configs"][0], entry["size"])
            shapes = needs(config, FITTED)
            entry["recipes"] |= {one: estimated(config, parse_topology(one), shapes)
                                 for one in missing}
        for one, recipe in entry["recipes"].items():
            if recipe["by"] == "estimate" and entry["size"] == SIZES[0]:
                entry["recipes"][one] = planned(entry["configs"], one) or recipe
    save(out, kept)
    for entry in kept.values() if compiles else ():
        name, size = entry["configs"][0], entry["size"]
        for one in hardware:
            if (entry["recipes"][one]["by"] == "compiler" or not compilable(parse_topology(one))
                    or not any(re.search(only, f"{name} {size}") for name in entry["configs"])):
                continue
            entry["recipes"][one] = separate(name, size, one)
            print(f"{name} {size} {one}: {entry['recipes'][one]}", flush=True)
            save(out, kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=3, metavar=("CONFIG", "SIZE", "HARDWARE"),
                        help="print the recipe of this one alone")
    parser.add_argument("--hardware", default=",".join(HARDWARE), help="names, with commas")
    parser.add_argument("--only", default="", help="compile where CONFIG SIZE has this expression")
    parser.add_argument("--estimates", action="store_true", help="compile nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.one:
        name, size, hardware = options.one
        print(json.dumps(compiled(config_of(name, size), parse_topology(hardware))))
        return
    update(options.out, options.hardware.split(","), options.only, not options.estimates)


if __name__ == "__main__":
    main()
