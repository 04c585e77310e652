"""What the large model's image-text step takes of more and more chips: `benchmarks/scale.json`.

    python -m benchmarks.scale          (make plan-scale)

`configs/pretrain.py:large,image` is compiled, at level O1, for 256 chips and for two and four
slices of 256, with 32,768 examples a step on all of them (strong scaling) and with 128 a chip
(weak): what a chip holds, the bytes that it sends along each axis of the mesh, to other slices, and
for the contrastive loss, and what bounds the step. The mesh is data x fsdp 16; `data` crosses the
slices. What was not compiled has what follows from shapes: FLOPs, an estimate of the peak, and what
goes between slices; and of the traffic of HBM and of a slice's own network what steps say that were
compiled for one slice (`ONE_SLICE`). Each result is written as it comes; interrupted, the same
command goes on.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from benchmarks.demo_tasks import write
from configs import pretrain
from mplug2_jax.planning.chips import GIB
from mplug2_jax.planning.estimate import Needs, needs
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.planning.hlo import Program
from mplug2_jax.planning.plan import Plan, compile_plan, state_shapes, with_batch
from mplug2_jax.planning.search import Candidate
from mplug2_jax.planning.shapes import batch_shapes
from mplug2_jax.planning.topology import parse_topology

OUT = Path("benchmarks/scale.json")
CONFIG = "configs/pretrain.py:large,image"
FSDP, A_CHIP, WHOLE = 16, 128, 32_768
FEWEST = 4  # images a chip, up to which `continued` goes
# Of steps compiled for `v5e:16x16` at level O1: images a chip and bytes of HBM traffic, mesh 1 x
# 256 (`pretrain.py:image` of benchmarks/plans.json; docs/scaling.md, "`large`, one kind of pairs");
# bytes that a chip sends, mesh 16 x 16 (there, too), which are the weights' and not the images'.
ONE_SLICE = {"traffic": ((16, 0.1556 * 819e9), (128, 1.026 * 819e9)), "sent": 7.47 * GIB}
SLICE = {"v5e": "v5e:16x16", "v5p": "v5p:4x8x8"}  # of 256 chips; Google calls the latter v5p-512


class Case(NamedTuple):
    """A step on some chips."""

    topology: str
    batch: int

    @property
    def name(self) -> str:
        """In the file."""
        return f"{self.topology} {self.batch}"


def cases() -> list[Case]:
    """Of every chip first the two ends, then what lies between."""
    found = []
    for one_slice in SLICE.values():
        for slices in (1, 4, 2):
            name = f"{slices}x{one_slice}" if slices > 1 else one_slice
            weak = parse_topology(name).size * A_CHIP
            found += [Case(name, batch) for batch in dict.fromkeys((WHOLE, weak))]
    return sorted(found, key=lambda case: case.topology.startswith("2x"))


def figures(plan: Plan) -> dict[str, Any]:
    """What is kept of a plan; bytes are those that a chip sends in a step."""
    contrastive = [one for one in Program(plan.text).collectives() if "contrastive" in one.source]
    loss, crossing = (sum(one.moved for one in contrastive if one.outside or not only)
                      for only in (False, True))
    return {
        "by": "compiler", "chips": plan.devices, "mesh": "x".join(map(str, plan.mesh.values())),
        "batch": plan.batches["image"], "peak_gib": round(plan.peak / GIB, 2),
        "of_gib": plan.chip.hbm / GIB, "arguments_gib": round(plan.arguments / GIB, 2),
        "traffic_gib": round(plan.traffic / GIB, 1),
        "axes_mib": {axis: round(size / 2 ** 20, 1) for axis, size in plan.axes.items()},
        "dcn_mib": round(plan.dcn / 2 ** 20, 1),
        "contrastive_mib": round(loss / 2 ** 20, 1),
        "contrastive_dcn_mib": round(crossing / 2 ** 20, 2),
        "model_flops": float(f"{plan.model_flops:.4g}"),
        "executed_flops": float(f"{plan.executed_flops:.4g}"),
        "seconds": {name: round(value, 4) for name, value in plan.bounds.items()},
        "bound_by": plan.bound, "mfu_at_most": round(plan.mfu, 3),
        "compile_seconds": round(plan.compile_seconds, 1)}


def on_paper(case: Case, found: Needs, executed: int, forward: int) -> dict[str, Any]:
    """What follows from shapes.

    Between slices go gradients, once a step: those of one slice sum them, so that each has a part,
    and exchange that with their like in the others. The features of the contrastive loss are
    gathered likewise, each chip's own.

    Args:
      case: the step.
      found: what one of `WHOLE` images needs.
      executed, forward: FLOPs of the step with its gradients, and of its loss alone.
    """
    topology = parse_topology(case.topology)
    chip, slices, chips = topology.chip, topology.slices, topology.size
    mesh = dict(data=chips // FSDP, fsdp=FSDP, tensor=1)
    more = case.batch / WHOLE
    needed = dataclasses.replace(found, kept={name: more * size
                                              for name, size in found.kept.items()})
    numbers = sum(x.size for x in jax.tree.leaves(found.state.params))
    gradients = 4 * numbers / (chips // slices) * 2 * (slices - 1) / slices
    features = 2 * 4 * config_of(case.batch).model.contrastive_dim * case.batch
    loss = features / chips * (slices - 1)
    (few, least), (many, most) = ONE_SLICE["traffic"]
    traffic = least + (case.batch / chips - few) * (most - least) / (many - few)
    seconds = {"compute": executed / chips / chip.flops, "memory": traffic / chip.hbm_bandwidth,
               "interconnect": ONE_SLICE["sent"] / chip.ici_bandwidth} | (
        {"dcn": (gradients + loss) / chip.dcn_bandwidth} if slices > 1 else {})
    return {
        "by": "shapes", "chips": chips, "mesh": "x".join(map(str, mesh.values())),
        "batch": case.batch, "peak_gib": round(needed.peak(mesh, "full", 1) / GIB, 1),
        "of_gib": chip.hbm / GIB, "dcn_mib": round((gradients + loss) / 2 ** 20, 1),
        "contrastive_dcn_mib": round(loss / 2 ** 20, 2), "model_flops": float(f"{3 * forward:.4g}"),
        "executed_flops": float(f"{executed:.4g}"),
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "bound_by": max(seconds, key=lambda name: seconds[name]),
        "mfu_at_most": round(3 * forward / chips / chip.flops / max(seconds.values()), 3)}


def counted(batch: int) -> tuple[int, int]:
    """FLOPs of a step with its gradients, and of its loss alone."""
    task, streams, _, state = state_shapes(Candidate({}, "full", 1).of(config_of(batch)))
    given = batch_shapes(task, streams)

    def loss(params: Any, fields: Any) -> jax.Array:
        return task.loss(params, fields, jax.random.key(0), state.task_state)[0]

    return count_flops(jax.grad(loss), state.params, given), count_flops(loss, state.params, given)


def config_of(batch: int) -> ConfigDict:
    """The config with so many images a step."""
    return with_batch(pretrain.get_config("large,image"), batch)


def plan(case: Case, text: str = "") -> dict[str, Any]:
    """The figures of a case, in this process.

    Args:
      case: to be compiled.
      text: a file for the program, "" for none.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_optimization_level", "O1")
    topology = parse_topology(case.topology)
    mesh = dict(data=topology.size // FSDP, fsdp=FSDP, tensor=1)
    found = compile_plan(Candidate(mesh, "full", 1).of(config_of(case.batch)), topology)
    if text:
        Path(text).write_text(found.text)
    return figures(found)


def cost(step: dict[str, Any]) -> float:
    """Chip-hours of a million images, at least."""
    return step["chips"] * max(step["seconds"].values()) / step["batch"] * 1e6 / 3600


def continued(chip: str, known: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """Chips and cost of ever more slices for the same batch, from two of the steps that were
    compiled for it: each time is a part that does not shrink, and one that goes with the images of
    a chip; what crosses slices does not shrink.

    Args:
      chip: a key of `SLICE`.
      known: its steps.
    """
    same = sorted((one for one in known if one["batch"] == WHOLE), key=lambda one: one["chips"])
    if len(same) < 2:
        return []
    few, many = same[0], same[-1]
    found, chips = [], many["chips"]
    while chips <= WHOLE // FEWEST:
        times = []
        for what in ("compute", "memory", "interconnect"):
            slope = ((few["seconds"][what] - many["seconds"][what])
                     / (WHOLE / few["chips"] - WHOLE / many["chips"]))
            fixed = many["seconds"][what] - slope * WHOLE / many["chips"]
            times.append(fixed + slope * WHOLE / chips)
        slices, between = chips // few["chips"], many["chips"] // few["chips"]
        times.append(many["seconds"]["dcn"] * (1 - 1 / slices) / (1 - 1 / between))
        found.append((chips, cost({"chips": chips, "batch": WHOLE,
                                   "seconds": dict(enumerate(times))})))
        chips *= 2
    return found


def separate(case: Case) -> dict[str, Any]:
    """`plan` in a process of its own, which gives its memory back."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.scale", "--one", case.topology,
                           str(case.batch)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case.name}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("TOPOLOGY", "BATCH"),
                        help="print the figures of this one alone")
    parser.add_argument("--text", default="", help="a file for the compiled program, with --one")
    parser.add_argument("--most", type=int, default=len(cases()), help="compile so many at most")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(plan(Case(options.one[0], int(options.one[1])), options.text)))
        return
    done = json.loads(options.out.read_text())["steps"] if options.out.is_file() else {}
    missing = [case for case in cases() if case.name not in done]
    found = needs(config_of(WHOLE), ("full",)) if missing else None
    flops = {batch: counted(batch) for batch in {case.batch for case in missing}}
    for case in missing:
        done[case.name] = on_paper(case, found, *flops[case.batch])
    save(options.out, done)
    open_ = [case for case in cases() if done[case.name]["by"] != "compiler"]
    for case in open_[:options.most]:
        done[case.name] = separate(case)
        print(f"{case.name}: {done[case.name]}", flush=True)
        save(options.out, done)


def save(out: Path, done: dict[str, Any]) -> None:
    """Writes the file."""
    write(out, {"command": "make plan-scale", "config": CONFIG, "level": "O1", "steps": done})


if __name__ == "__main__":
    main()
