"""Evaluates a checkpoint on any task: figures, and a page that shows what the model said.

    python eval.py --checkpoint=runs/demo --out=runs/demo

Runs the evaluations of the checkpoint's own config, or those of `--config`, and writes
`report.json` and `report.html`. With `--untrained`, freshly initialised parameters run beside.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

import evaluation
from configs import common
from data import pipeline
from data.examples import eval_clip, resolve
from mplug2_jax import launch
from mplug2_jax.model import init_params
from mplug2_jax.preprocess.tokenizer import load_tokenizer
from mplug2_jax.report import Card, Section, write_report
from mplug2_jax.training import sharding
from mplug2_jax.training.checkpoint import Checkpoints

CONFIG = config_flags.DEFINE_config_file("config", None, "Instead of the checkpoint's config.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A work folder or a checkpoint folder.")
OUT = flags.DEFINE_string("out", None, "Folder for the reports; the checkpoint's by default.")
ONLY = flags.DEFINE_list("only", [], "Names of the evaluations to run; all by default.")
UNTRAINED = flags.DEFINE_bool("untrained", False, "Evaluate untrained parameters beside.")
VALIDATION = flags.DEFINE_bool("validation", False, "Use the validation splits, for tuning.")
CARDS = flags.DEFINE_integer("cards", 12, "Examples of each evaluation in the page.")
flags.mark_flag_as_required("checkpoint")


def main() -> None:
    checkpoints = Checkpoints(evaluation.checkpoint_folder(CHECKPOINT.value))
    meta = checkpoints.meta()
    config = CONFIG.value or ConfigDict(meta["config"])
    model_config = common.validate(config)
    mesh = sharding.make_mesh(**config.mesh)
    tokenizer = load_tokenizer(config.data.tokenizer)
    evaluations = evaluation.build(config, model_config, tokenizer, VALIDATION.value, ONLY.value)
    if not evaluations:
        raise ValueError("config.evals: empty; name at least one evaluation")

    figures, records, untrained = {}, {}, {}
    for name, entry in evaluations.items():
        # Each evaluation loads just the modules that its task uses.
        def create(model=entry.task.model):
            return init_params(model, jax.random.key(config.seed))

        one = {name: entry}
        params = checkpoints.load_params(jax.eval_shape(create), mesh)
        scores, more = evaluation.run(one, config, tokenizer, params, mesh)
        logging.info("%s: %s", name, evaluation.summary(scores))
        figures |= scores
        records |= more
        if UNTRAINED.value:
            fresh = sharding.init_sharded(create, mesh)
            untrained |= evaluation.run(one, config, tokenizer, fresh, mesh)[0]
    checkpoints.close()
    if jax.process_index() == 0:
        folder = Path(OUT.value or CHECKPOINT.value)
        page = write_report(folder, contents(config, meta, figures, untrained, records),
                            [section(name, evaluations[name], config, figures, records[name])
                             for name in evaluations])
        logging.info("wrote %s and %s", folder / "report.json", page)


def contents(config: ConfigDict, meta: dict[str, Any], figures: dict[str, float],
             untrained: dict[str, float], records: evaluation.Records) -> dict[str, Any]:
    """The report: every figure by its name, what a reader compares it with, facts of the run."""
    headline = {}
    for name, value in figures.items():
        if not name.endswith(evaluation.HEADLINES) or "_majority" in name:
            continue
        row = {"value": value}
        if name.endswith("_r1"):
            kind = "video" if "video" in name else "image"
            row["chance"] = 1 / len(records[f"{kind}_retrieval"])
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
        },
    }


def training_facts(log: Path) -> dict[str, Any]:
    """The last line of a run's `train.jsonl`, or nothing where there is none."""
    lines = log.read_text().splitlines() if log.is_file() else []
    return json.loads(lines[-1]) if lines else {}


def section(name: str, entry: evaluation.Evaluation, config: ConfigDict,
            figures: dict[str, float], records: list[dict[str, Any]]) -> Section:
    """A page section: evenly spaced examples of an evaluation, with their clips."""
    split = pipeline.open_split(config.data.root, entry.stream.split)
    stream = resolve(entry.stream)
    stream.views = (1, 1)  # one view of each is shown

    def clip(index: int) -> np.ndarray | None:
        return eval_clip(split[index], stream)

    chosen = [records[int(i)] for i in np.linspace(0, len(records) - 1, CARDS.value).round()]
    prefix = {"retrieval": (f"text_to_{entry.kind}", f"{entry.kind}_to_text", "dual_text"),
              "qa": (f"{entry.kind}_qa",), "captioning": (f"{entry.kind}_caption",),
              "grounding": (f"{entry.kind}_grounding",),
              "classification": tuple(f"{kind}_{figure}" for kind in (entry.kind, "text", "images")
                                      for figure in ("class", "score"))}
    shown = {key: value for key, value in figures.items()
             if key.startswith(prefix[config.evals[name].task.name])}
    return Section(name.replace("_", " "), shown, [card(record, clip) for record in chosen])


def card(record: dict[str, Any], clip: Any) -> Card:
    """One example: its frames beside what the model said and what was right."""
    if "query" in record:
        return Card(frames=None, rows=[("query", record["query"]), ("rank", str(record["rank"]))],
                    correct=record["rank"] == 1,
                    thumbnails=[(clip(index), f"{place}.", index == record["index"])
                                for place, index in enumerate(record["top"], 1)])
    frames = clip(record["index"])
    if "phrase" in record:
        return Card(frames=frames, correct=record["iou"] >= 0.5,
                    rows=[("phrase", record["phrase"]), ("model", box_text(record["prediction"])),
                          ("box", box_text(record["box"])), ("IoU", f"{record['iou']:.2f}")])
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
    return Card(frames=frames, correct=None,
                rows=[("model", record["prediction"]),
                      *(("reference", text) for text in record["references"])])


def box_text(box: list[float]) -> str:
    """Corners in hundredths of the sides."""
    return "{:.2f}, {:.2f} to {:.2f}, {:.2f}".format(*box)


if __name__ == "__main__":
    launch.main(main)
