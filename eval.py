"""Evaluates a checkpoint on any task: figures, and a page that shows what the model said.

    python eval.py --checkpoint=runs/demo --out=runs/demo

Runs the evaluations of the checkpoint's own config, or those of `--config`, and writes
`report.json`, `report.html` and for each evaluation `<name>.jsonl`, every example with its own
scores. With `--untrained`, freshly initialised parameters run beside.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from configs import common
from data import pipeline
from data.pipeline.examples import eval_clip, resolve
from data.pipeline.fingerprint import fingerprint
from mplug2_jax import launch
from mplug2_jax.checkpoints.manager import Checkpoints
from mplug2_jax.evaluation import run as evaluation
from mplug2_jax.evaluation.records import best_first, choose, write_records
from mplug2_jax.evaluation.report import Card, Section, write_report
from mplug2_jax.metrics.scores import keep
from mplug2_jax.model.mplug2 import init_params, union
from mplug2_jax.parallel import hosts, sharding
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.preprocess.tokenizer import load_tokenizer

CONFIG = config_flags.DEFINE_config_file("config", None, "Instead of the checkpoint's config.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A work folder or a checkpoint folder.")
OUT = flags.DEFINE_string("out", None, "Folder for the reports; the checkpoint's by default.")
ONLY = flags.DEFINE_list("only", [], "Names of the evaluations to run; all by default.")
UNTRAINED = flags.DEFINE_bool("untrained", False, "Evaluate untrained parameters beside.")
VALIDATION = flags.DEFINE_bool("validation", False, "Use the validation splits, for tuning.")
CARDS = flags.DEFINE_integer("cards", 12, "Examples of each evaluation in the page: best, worst, "
                             "random.")
ORDER = flags.DEFINE_enum("order", "worst", ["worst", "best", "split"],
                          "Which examples come first in the .jsonl files.")
JAVA = flags.DEFINE_bool("java", False,
                         "METEOR and SPICE of captions, where Java and their data are.")
flags.mark_flag_as_required("checkpoint")


def main() -> None:
    checkpoints = Checkpoints(evaluation.checkpoint_folder(CHECKPOINT.value))
    meta = checkpoints.meta()
    config = CONFIG.value or common.completed(meta["config"])
    model_config = common.validate(config)
    hosts.agree({"config": launch.plain(config), "code": launch.code(),
                 "data": fingerprint(config.data), "step": meta["step"],
                 "flags": {flag.name: flag.value for flag in (ONLY, UNTRAINED, VALIDATION)}})
    launch.keep_compilations()
    mesh = make_mesh(**config.mesh)
    tokenizer = load_tokenizer(config.data.tokenizer)
    evaluations = evaluation.build(config, model_config, tokenizer, VALIDATION.value, ONLY.value)
    if not evaluations:
        raise ValueError("config.evals: empty; name at least one evaluation")

    figures, records, untrained, absent, origin = {}, {}, {}, {}, {}
    model = union(entry.task.model for entry in evaluations.values())  # what is used, no more

    def create():
        return init_params(model, jax.random.key(config.seed))

    params = checkpoints.load_params(jax.eval_shape(create), mesh, averaged=True)
    checkpoints.close()
    fresh = sharding.init_sharded(create, mesh) if UNTRAINED.value else None
    for name, entry in evaluations.items():
        one = {name: entry}
        scores, more = evaluation.run(one, config, tokenizer, params, mesh, with_intervals=True)
        logging.info("%s: %s", name, evaluation.summary(scores))
        figures |= scores
        records |= more
        origin |= dict.fromkeys(scores, name)
        if not JAVA.value:
            absent |= {slow.format(kind=entry.kind): "not asked for; --java computes it"
                       for slow in entry.task.slow}
        elif jax.process_index() == 0:
            slow, missing = entry.task.slow_scores(more[name], entry.kind)
            figures |= keep(more[name], slow) | evaluation.ends(slow)
            absent |= missing
        if UNTRAINED.value:
            untrained |= evaluation.run(one, config, tokenizer, fresh, mesh)[0]
    if hosts.is_first():
        folder = Path(OUT.value or CHECKPOINT.value)
        page = write_report(
            folder, contents(config, meta, figures, origin, untrained, records, absent),
            [section(name, evaluations[name], config, figures, records[name])
             for name in evaluations])
        for name, entry in evaluations.items():
            ordered = records[name]
            if ORDER.value != "split":
                ordered = best_first(ordered, best_by(entry), worst=ORDER.value == "worst")
            write_records(folder / f"{name}.jsonl", ordered)
            submission = folder / f"{name}_submission.json"
            if entry.task.write_submission(submission, records[name]):
                logging.info("wrote %s, for the evaluation server", submission)
        logging.info("wrote %s, %s and every example in .jsonl files", folder / "report.json", page)


def contents(config: ConfigDict, meta: dict[str, Any], figures: dict[str, float],
             origin: dict[str, str], untrained: dict[str, float], records: evaluation.Records,
             absent: dict[str, str]) -> dict[str, Any]:
    """The report: every figure by its name, what a reader compares it with, facts of the run.

    `origin` says which evaluation gave a figure.
    """
    headline = {}
    for name, value in figures.items():
        if not name.endswith(evaluation.HEADLINES) or "_majority" in name:
            continue
        row = {"value": value}
        if f"{name}_low" in figures:
            row["interval"] = figures[f"{name}_low"], figures[f"{name}_high"]
        if name.endswith("_r1"):
            row["chance"] = 1 / len({record["index"] for record in records[origin[name]]})
        if (majority := name.replace("_accuracy", "_majority")) != name and majority in figures:
            row["majority"] = figures[majority]
        if name in untrained:
            row["untrained"] = untrained[name]
        headline[name] = row
    training = training_facts(Path(CHECKPOINT.value) / "train.jsonl")
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "grain")
    return {
        "title": "mPLUG-2 evaluation",
        "summary": f"{CHECKPOINT.value}, step {meta['step']}; "
                   + ("validation" if VALIDATION.value else "held-out test") + " examples.",
        "figures": headline,
        **figures,
        "absent": absent,
        **{f"{name}_untrained": value for name, value in untrained.items()},
        "gallery": {name: len(value) for name, value in records.items()},
        "examples_per_second": training.get("average_examples_per_second", 0.0),
        "seed": config.seed,
        "step": meta["step"],
        "config": launch.plain(config),
        "run": {
            "seed": config.seed, "steps": meta["step"],
            "examples per second, training": round(training.get("average_examples_per_second", 0)),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            **{name: importlib.metadata.version(name) for name in packages},
            **({"absent": absent} if absent else {}),
        },
    }


def training_facts(log: Path) -> dict[str, Any]:
    """The last line of a run's `train.jsonl`, or nothing where there is none."""
    lines = log.read_text().splitlines() if log.is_file() else []
    return json.loads(lines[-1]) if lines else {}


def section(name: str, entry: evaluation.Evaluation, config: ConfigDict,
            figures: dict[str, float], records: list[dict[str, Any]]) -> Section:
    """A page section: best, worst and random examples of an evaluation, with their clips."""
    split = pipeline.open_split(entry.stream.root or config.data.root, entry.stream.split)
    stream = resolve(entry.stream)
    stream.views = (1, 1)  # one view of each is shown

    def clip(index: int) -> np.ndarray | None:
        return eval_clip(split[index], stream)

    chosen = choose(records, best_by(entry), CARDS.value, config.seed)
    prefix = {"retrieval": (f"text_to_{entry.kind}", f"{entry.kind}_to_text", "dual_text"),
              "qa": (f"{entry.kind}_qa",), "captioning": (f"{entry.kind}_caption",),
              "grounding": (f"{entry.kind}_grounding",),
              **dict.fromkeys(("classification", "zero_shot", "knn"),
                              (f"{entry.kind}_class", f"{entry.kind}_score"))}
    shown = {key: value for key, value in figures.items()
             if key.startswith(prefix[config.evals[name].task.name])
             and not key.endswith(("_low", "_high"))}
    return Section(name.replace("_", " "), shown, groups={
        group: [card(record, clip) for record in some] for group, some in chosen.items()})


def best_by(entry: evaluation.Evaluation) -> str:
    """The name of the score that orders the evaluation's examples."""
    return entry.task.best_by.format(kind=entry.kind)


def card(record: dict[str, Any], clip: Any) -> Card:
    """One example: its frames beside what the model said and what was right."""
    if "query" in record:
        return Card(frames=None, rows=[("query", record["query"]), ("rank", str(record["rank"]))],
                    correct=record["rank"] == 1,
                    thumbnails=[(clip(index), f"{place}.", index == record["index"])
                                for place, index in enumerate(record["top"], 1)])
    frames = clip(record["index"])
    if "phrase" in record:
        own = next(value for name, value in record["scores"].items() if name.endswith("_iou"))
        for box, colour in ((record["box"], (0, 200, 0)), (record["prediction"], (255, 60, 60))):
            frames = outlined(frames, box, colour)
        return Card(frames=frames, correct=own >= 0.5,
                    rows=[("phrase", record["phrase"]), ("model, red", f"IoU {own:.2f}")])
    if "label" in record:
        said = record["prediction"]
        scored = isinstance(said, float)
        correct = None if scored or not record["label"] else said == record["label"]
        return Card(frames=frames, correct=correct,
                    rows=[*(("text", text) for text in record["texts"]),
                          ("model", f"{said:.2f}" if scored else said),
                          ("label", record["label"] or "hidden")])
    if "question" in record:
        correct = record["prediction"] == record["answer"].lower() if record["answer"] else None
        return Card(frames=frames, correct=correct,
                    rows=[("question", record["question"]), ("model", record["prediction"]),
                          ("answer", record["answer"])])
    own = [(name.rpartition("_")[2], f"{value:.2f}")
           for name, value in record.get("scores", {}).items() if name.endswith("_cider")]
    return Card(frames=frames, correct=None,
                rows=[("model", record["prediction"]), *own,
                      *(("reference", text) for text in record["references"])])


def outlined(frames: np.ndarray, box: list[float], colour: tuple[int, int, int]) -> np.ndarray:
    """Frames `[T, H, W, 3]` with the outline of a box (x0, y0, x1, y1) in 0..1, a pixel wide."""
    frames = frames.copy()
    height, width = frames.shape[1:3]
    x0, y0, x1, y1 = (min(max(round(share * side), 0), side - 1)
                      for share, side in zip(box, (width, height) * 2, strict=True))
    frames[:, [y0, y1], x0:x1 + 1] = colour
    frames[:, y0:y1 + 1, [x0, x1]] = colour
    return frames


if __name__ == "__main__":
    launch.main(main, distributed=True)
