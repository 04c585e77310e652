"""How much of a run's time ends up in steps that count, by the number of hosts that may fail.

    python -m mplug2_jax.planning goodput --config=configs/pretrain.py:large --step_seconds=0.621

For 8 to 4,096 hosts: the best `checkpoint_every`, the goodput with it and where the rest goes, with
and without checkpoints on the hosts' own disks; beside it what public trainers report.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from mplug2_jax import launch
from mplug2_jax.planning.failures import Best, Run, best
from mplug2_jax.planning.plan import gib
from mplug2_jax.planning.shapes import planned
from mplug2_jax.planning.storage import Costs, measure, tiers
from mplug2_jax.planning.weeks import simulate
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state

HOSTS = [2 ** power for power in range(3, 13)]
DAY = 24 * 3600.0
WEEKS, RUNS = 4, 64  # of each simulation

# Of the unexpected interruptions of Llama 3 405B in 54 days on 2,048 hosts of 8 GPUs, 419 in all,
# 321 were faults of a host's GPUs (268) or of itself (21), or its unplanned maintenance (32):
# glennklockwood.com/garden/component-reliability. The others leave the hosts' disks alone.
INTERRUPTIONS, HOST_LOST, DAYS, THEIR_HOSTS = 419, 321, 54, 2048
# From a failure until a run is tried again, the median of 504 GPUs: arxiv.org/abs/2605.09370. A
# lost host is found after 65 s of them (docs/scaling.md).
RETRY, DETECTION = 660.0, 65.0
PUBLISHED = (  # who, hardware, what they report, where it was read
    ("Llama 3 405B", "16,384 H100", "466 interruptions in 54 days, 419 of them unexpected; "
     "over 90 % effective training time",
     "datacenterdynamics.com/en/news/meta-report-details-hundreds-of-gpu-and-hbm3-related-"
     "interruptions-to-llama-3-training-run; glennklockwood.com/garden/component-reliability"),
    ("Gemini Ultra", "TPU v4, several SuperPods of 4,096",
     "goodput 85 %, 97 % with copies of the state in other hosts' memory",
     "ai-papers.xuzou.cn/papers/gemini_2023"),
    ("Multi-tier checkpoints", "35,000 TPU v5p", "6.59 % more goodput",
     "cloud.google.com/blog/ja/products/ai-machine-learning/using-multi-tier-checkpointing-for-"
     "large-ai-training-jobs"),
    ("ByteRobust", "9,600 GPUs, three months", "97 % effective training time",
     "summarxiv.com/en/paper/2509.16293"),
    ("OPT-175B", "992 A100, 56 days", "53 to 54 restarts",
     "zrss.github.io/archives/9b7ac1f7.html; ai-papers.xuzou.cn/papers/opt_2022"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A way to keep checkpoints, with the runs that it gives by number of hosts."""

    name: str
    runs: dict[int, Run]


def state_bytes(config: ConfigDict) -> int:
    """Bytes of what a checkpoint of this config holds; nothing is allocated."""
    task, _ = planned(config)
    optimizer, _ = make_optimizer(config.optimizer)
    shapes = jax.eval_shape(lambda: create_state(
        task, optimizer, config.seed, config.optimizer.ema_decay > 0))
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes.items()))


def plans(costs: Costs, size: int, step: float, mtbf: float, restart: float, lost: float,
          copies: int) -> list[Plan]:
    """Without local checkpoints; with them; with a copy of each on another host.

    Args:
      costs: of saving and restoring.
      size: bytes of the state.
      step: seconds of a training step.
      mtbf: seconds between failures of one host.
      restart: seconds from a failure until restoring begins.
      lost: share of failures that take a host's disk with it.
      copies: of the state on different hosts.
    """
    found: list[Plan] = [Plan(name, {}) for name in ("none", "own disk", "two hosts")]
    for hosts in HOSTS:
        shared, own = tiers(costs, size, hosts, copies, copies)
        whole = Run(step, mtbf / hosts, restart, shared)
        # Of two hosts with the same part both fail within one restart.
        both = lost * -math.expm1(-(restart + shared.restored) / mtbf)
        # A part that another copy of the state holds needs none of its own.
        doubled = tiers(costs, size, hosts, copies, max(copies, 2))[1]
        found[0].runs[hosts] = whole
        found[1].runs[hosts] = dataclasses.replace(
            whole, local=own, lost=both if copies > 1 else lost)
        found[2].runs[hosts] = dataclasses.replace(whole, local=doubled, lost=both)
    return found[:2] if copies > 1 else found


def rows(every: list[Plan]) -> Iterator[tuple[str, ...]]:
    """A row for each number of hosts and plan."""
    yield ("hosts", "a failure", "local", "checkpoint_every", "local every", "goodput", "saves",
           "again", "restarts", "simulated")
    for hosts in HOSTS:
        for plan in every:
            run = plan.runs[hosts]
            yield (f"{hosts:,}", spell(run.mtbf), plan.name, *row(run, best(run)))


def row(run: Run, found: Best) -> tuple[str, ...]:
    """Intervals and shares of one run."""
    shares = found.shares
    middle, error = simulate(run, found.every, found.local_every, WEEKS, RUNS).interval()
    return (steps(found.every, run.step),
            steps(found.local_every, run.step) if found.local_every else "-",
            *(f"{100 * share:.2f}%" for share in (
                shares.goodput, shares.saving, shares.again, shares.down)),
            f"{100 * middle:.2f} ± {100 * error:.2f}%")


def steps(number: int, step: float) -> str:
    """`1,200 (12.4 min)`."""
    return f"{number:,} ({spell(number * step)})"


def spell(seconds: float) -> str:
    """`3.1 d`, `1.5 h`, `12.4 min` or `8.1 s`."""
    for name, size in (("d", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"


def aligned(lines: list[tuple[str, ...]]) -> str:
    """Columns of text, the first two and the last seven to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(
        f"{cell:<{width}}" if i == 2 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines)


def report(config: ConfigDict, costs: Costs, given: Any) -> str:
    """The table with what it comes from, and the figures of others."""
    size = state_bytes(config)
    restart = given.detect_seconds + given.restart_seconds
    table = plans(costs, size, given.step_seconds, given.mtbf_days * DAY, restart,
                  given.lost_share, given.copies)
    said = ", ".join(f"{field.name} {getattr(costs, field.name):.3g}"
                     for field in dataclasses.fields(costs))
    head = [f"state                   {gib(size)}, {given.copies} on all hosts together",
            f"a host                  fails once in {given.mtbf_days:.0f} days; "
            f"{100 * given.lost_share:.0f}% of failures take its disk with it",
            f"a failure               {restart:.0f} s until restoring begins",
            f"a step                  {given.step_seconds:g} s",
            "local                   own disk: train.py --local=FOLDER --local_every=STEPS; two "
            "hosts: and if a copy lay on another one's, as mesh.data puts it there (--copies=2)",
            f"storage                 {said} (s and GiB/s a host)"]
    others = [f"{who} ({what}): {figure}\n    {where}" for who, what, figure, where in PUBLISHED]
    return "\n".join([*head, "", aligned(list(rows(table))), "", "What others report:", *others])


def main() -> None:
    given = flags.FLAGS
    costs = Costs(**{field.name: getattr(given, field.name)
                     for field in dataclasses.fields(Costs)})
    if given.measure:
        costs = measure(given.measure, costs)
    else:
        jax.config.update("jax_platforms", "cpu")  # nothing runs
    print(report(given.config, costs, given))


def command() -> None:
    """Defines the flags and runs."""
    launch.define_config("The run's config, which gives the bytes of its state.")
    flags.DEFINE_float("step_seconds", None, "Seconds of a training step.", lower_bound=1e-6)
    flags.DEFINE_float("mtbf_days", round(DAYS * THEIR_HOSTS / INTERRUPTIONS), "Days between two "
                       "failures of one host; the default is Llama 3's.", lower_bound=1e-6)
    flags.DEFINE_float("lost_share", round(HOST_LOST / INTERRUPTIONS, 2), "Share of failures that "
                       "take a host's disk with it; the default is Llama 3's.", 0.0, 1.0)
    flags.DEFINE_float("detect_seconds", DETECTION, "Seconds until a lost host is found.", 0.0)
    flags.DEFINE_float("restart_seconds", RETRY - DETECTION, "Seconds from then until restoring "
                       "begins: a host in its place, processes, compiling.", 0.0)
    flags.DEFINE_integer("copies", 1, "Of the state, on different hosts (mesh.data).",
                         lower_bound=1)
    flags.DEFINE_string("measure", "", "Folder of the storage to measure instead of taking the "
                                       "times and rates below, but for local ones.")
    for field in dataclasses.fields(Costs):
        lowest = 0.0 if field.name.endswith("seconds") else 1e-6
        flags.DEFINE_float(field.name, getattr(Costs, field.name), field.metadata["help"], lowest)
    flags.mark_flags_as_required(["config", "step_seconds"])
    launch.main(main)
