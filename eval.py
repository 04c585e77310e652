"""Evaluates a checkpoint on any task: figures, and a page that shows what the model said.

    python eval.py --checkpoint=runs/demo --out=runs/demo

Runs the evaluations of the checkpoint's own config, or those of `--config`, on the last checkpoint
of the work folder or with `--which=best` on that which validation chose, and writes
`report.json`, `report.html` and for each evaluation `<name>.jsonl`, every example with its own
scores. With `--untrained`, freshly initialised parameters run beside. Killed, the same command goes
on with the evaluations that are not done.
"""

import functools
import importlib.metadata
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import checks, selection, stored
from data import pipeline
from mplug2_jax import evaluation, launch, places
from mplug2_jax.checkpoints import BEST, LAST, CheckpointError, Checkpoints, located, open_which
from mplug2_jax.checkpoints import WHICH as WHICHES
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.parallel import accelerators, hosts, sharding
from mplug2_jax.parallel.mesh import data_slice, make_mesh, put_batch, shards_of
from mplug2_jax.preprocess.tokenizer import load_tokenizer

CONFIG = launch.define_config("Instead of the checkpoint's config.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A work folder or a checkpoint folder.")
WHICH = flags.DEFINE_enum("which", "last", list(WHICHES), "Checkpoint of a work folder: "
                          "the last, or the best by the config's `best`.")
OUT = flags.DEFINE_string("out", None, "Folder for the reports; the checkpoint's by default.")
ONLY = flags.DEFINE_list("only", [], "Names of the evaluations to run; all by default.")
UNTRAINED = flags.DEFINE_bool("untrained", False, "Evaluate untrained parameters beside.")
VALIDATION = flags.DEFINE_bool("validation", False, "Use the validation splits, for tuning.")
CARDS = flags.DEFINE_integer("cards", 12, "Examples of each evaluation in the page: best, worst, "
                             "random.", lower_bound=0)
ORDER = flags.DEFINE_enum("order", "worst", ["worst", "best", "split"],
                          "Which examples come first in the .jsonl files.")
JAVA = flags.DEFINE_bool("java", False,
                         "METEOR and SPICE of captions, where Java and their data are.")
flags.mark_flag_as_required("checkpoint")

TITLE = "mPLUG-2 evaluation"


def main() -> None:
    checkpoints = open_which(CHECKPOINT.value, WHICH.value)
    checkpoints.first_good(functools.partial(evaluate, checkpoints))


def evaluate(checkpoints: Checkpoints) -> None:
    """Evaluates the newest checkpoint of a folder."""
    meta = checkpoints.meta()
    given = CONFIG.value or stored.completed(meta)
    config = given if CONFIG.value else located.located(given, CHECKPOINT.value)
    checked = checks.validate(config, trains=False)
    accelerators.check()
    logging.info("%s", accelerators.describe())
    facts = {"config": launch.plain(stored.expanded(given)), "code": launch.code(),
             "files": launch.files_of(launch.plain(config)),
             "data": pipeline.fingerprint(config.data, config.evals), "step": meta["step"],
             "flags": {flag.name: flag.value for flag in (UNTRAINED, VALIDATION, WHICH)}}
    hosts.agree(facts | {ONLY.name: ONLY.value})
    launch.keep_compilations()
    mesh = make_mesh(**config.mesh)
    tokenizer = load_tokenizer(config.data.tokenizer)
    evaluations = evaluation.build(config.evals, checked.evaluations, checked.model, tokenizer,
                                   VALIDATION.value, ONLY.value)
    if not evaluations:
        raise ValueError("config.evals: empty; name at least one evaluation")
    read = functools.partial(
        pipeline.Reading, config.data.root, tokenizer=tokenizer, part=data_slice(mesh),
        put=lambda batch: put_batch(batch, mesh), threads=config.data.threads,
        workers=config.data.workers, shards=shards_of(mesh))
    check_modules(evaluations, checkpoints)
    files = {name: submission(config, name) for name in evaluations}
    folder = check_out(files) if hosts.is_first() else Path()
    check(evaluations, checkpoints, meta, read, mesh, files)
    report = Report(evaluations)
    origin = evaluation.Origin.of(meta, [] if VALIDATION.value else [
        name for name, entry in evaluations.items() if "best" in meta and selection.shared(
            entry.stream.split, entry.stream.root or config.data.root, meta["best"]["split"],
            located.best_root(meta, CHECKPOINT.value))])
    logging.info("%s: %s", checkpoints.folder, origin)
    if origin.warning:
        logging.warning("%s", origin.warning)
    journal = evaluation.Journal(folder, facts | {
        "checkpoint": str(checkpoints.path)}) if hosts.is_first() else None
    for name, done in run_all(evaluations, read, checkpoints, config.seed, mesh, journal):
        logging.info("%s: %s; %s", name, evaluation.summary(evaluations, done.scores), done.speed)
        report.add(name, done)
    if journal:
        write(report, config, origin, read, folder)
        journal.remove()


def submission(config: ConfigDict, name: str) -> str:
    """The file for a server that the config names; "" on validation splits, for it is of the test.
    """
    return "" if VALIDATION.value else config.evals[name].get("submission", "")


def check_out(files: dict[str, str]) -> Path:
    """The folder of the report, where all of its files can be written.

    Args:
      files: by evaluation the file for a server that the config names, "" for none.

    Raises:
      ConfigError: one of them cannot, or two have one name; ValueError: the run's log cannot be
        read, of which the report has the speed.
    """
    given = OUT.value or CHECKPOINT.value
    owners = {"report.json": "the report", "report.html": "the report"}
    for name, own in files.items():
        for file in (f"{name}.jsonl", own or f"{name}_submission.json"):
            if "/" in file:
                raise ConfigError(f"evals.{name}: its examples would be written to {file!r}; "
                                  "give it a name without '/'")
            if file in owners:
                raise ConfigError(f"evals.{name}: would write {file}, as {owners[file]} does; give "
                                  "it another name" + (" or submission" if own == file else ""))
            owners[file] = f"evals.{name}"
    folder = places.check_folder("--out" if OUT.value else "--checkpoint", given, owners)
    training_facts(paths.parse(CHECKPOINT.value))
    if (said := replaced(folder / "report.json", files)):
        logging.warning("%s/report.json is there, %s: it will be replaced", given, said)
    return folder


def replaced(path: Path, evaluations: Iterable[str]) -> str:
    """What a report that is there has and a new one will not; "" for nothing.

    Raises:
      ConfigError: it is the report of something else.
    """
    try:
        there = json.loads(path.read_text()) if path.is_file() else None
    except (ValueError, OSError):
        there = {}
    if there is None:
        return ""
    if not isinstance(there, dict) or there.get("title") != TITLE:
        raise ConfigError(f"{path}: is there and none of eval.py's reports; move it, or give "
                          "another --out")
    lost = sorted(set(there.get("gallery", {})) - set(evaluations))
    return f"with evaluations that this one has not ({', '.join(lost)})" if lost else ""


def check(evaluations: dict[str, evaluation.Evaluation], checkpoints: Checkpoints,
          meta: dict[str, Any], read: Any, mesh: Mesh, files: dict[str, str]) -> None:
    """What can be known of the evaluations before parameters are loaded: `evaluation.check`."""
    learned = meta["config"].get("task", {}).get("classes", ())
    for name, entry in evaluations.items():
        evaluation.check_classes(f"evals.{name}", entry.task, learned)
    evaluation.check(evaluations, read, checkpoints.shapes(), mesh, files=files)


def check_modules(evaluations: dict[str, evaluation.Evaluation], checkpoints: Checkpoints) -> None:
    """CheckpointError for an evaluation whose modules and heads are not all in the checkpoint."""
    stored = checkpoints.shapes()
    there = {*stored, *(f"heads/{head}" for head in stored.get("heads", ()))}
    for name, entry in evaluations.items():
        model = entry.task.model
        needed = (*model.modules, *(f"heads/{head}" for head in model.heads_used))
        if lacking := [one for one in needed if one not in there]:
            raise CheckpointError(f"{checkpoints.folder}: lacks {', '.join(lacking)}, which "
                                  f"evaluation {name!r}, task {entry.task.name!r}, needs")


def run_all(evaluations: dict[str, evaluation.Evaluation], read: Any, checkpoints: Checkpoints,
            seed: int, mesh: Mesh, journal: evaluation.Journal | None,
            ) -> Iterator[tuple[str, evaluation.Done]]:
    """Of each evaluation its name and what it gave; those that are done are not run again.

    On other processes than the first, which has the journal, those alone that are run.
    """
    kept = set(hosts.said_by_first(journal.names() if journal else []))
    if kept & evaluations.keys():
        logging.info("done already: %s", ", ".join(name for name in evaluations if name in kept))
    create = functools.partial(evaluation.create_params, evaluations, seed)
    params = fresh = None
    if evaluations.keys() - kept:
        params = checkpoints.load_params(jax.eval_shape(create), mesh, averaged=True)
        fresh = sharding.init_sharded(create, mesh) if UNTRAINED.value else None
    checkpoints.close()
    for name, entry in evaluations.items():
        if name not in kept:
            done = run_one(name, entry, read, params, fresh, mesh)
            if journal is None:
                yield name, done
            else:
                journal.write(name, done)
        if journal:
            yield name, journal.read(name)


def run_one(name: str, entry: evaluation.Evaluation, read: Any, params: Any, fresh: Any,
            mesh: Mesh) -> evaluation.Done:
    """What an evaluation gives of parameters, and its figures of fresh ones, if there are any."""
    start, one = time.monotonic(), {name: entry}
    scores, records = evaluation.run(one, read, params, mesh, with_intervals=True)
    speed = evaluation.Speed(read(entry.stream).count(), time.monotonic() - start)
    untrained = {} if fresh is None else evaluation.run(one, read, fresh, mesh)[0]
    return evaluation.Done(scores, records[name], untrained, speed)


class Report:
    """What the evaluations gave.

    Attributes:
      figures, untrained: by name.
      records: by evaluation.
      absent: why a figure is missing, by its name.
      filled: of a server's file, by its name, the ids of examples that could not be used, and what
        stands for them.
      origin: which evaluation gave a figure, by its name.
      speeds: by evaluation.
    """

    def __init__(self, evaluations: dict[str, evaluation.Evaluation]):
        self.evaluations = evaluations
        self.figures: dict[str, float] = {}
        self.untrained: dict[str, float] = {}
        self.records: evaluation.Records = {}
        self.absent: dict[str, str] = {}
        self.filled: dict[str, dict[str, Any]] = {}
        self.origin: dict[str, str] = {}
        self.speeds: dict[str, evaluation.Speed] = {}

    def add(self, name: str, done: evaluation.Done) -> None:
        """Takes over one evaluation, with its slow figures where they are wanted."""
        entry, (scores, records, untrained, self.speeds[name]) = self.evaluations[name], done
        self.figures |= scores
        self.untrained |= untrained
        self.records[name] = records
        self.origin |= dict.fromkeys(scores, name)
        self.absent |= entry.task.absent(records, entry.kind)
        if not JAVA.value:
            self.absent |= {figure.name.format(kind=entry.kind): "not asked for; --java computes it"
                            for figure in entry.task.figures if figure.slow}
        elif jax.process_index() == 0:
            slow, missing = entry.task.slow_scores(records, entry.kind)
            self.figures |= evaluation.noted(records, slow)
            self.absent |= missing

    def headline(self) -> dict[str, dict[str, Any]]:
        """The figures of the page's table, each with what a reader compares it with."""
        table = {}
        for name, value in self.figures.items():
            entry = self.evaluations.get(self.origin.get(name, ""))
            figure = entry and entry.task.figure(name, entry.kind)
            if not figure or not figure.headline or name.endswith(("_low", "_high")):
                continue
            row: dict[str, Any] = {"value": value}
            if f"{name}_low" in self.figures:
                row["interval"] = self.figures[f"{name}_low"], self.figures[f"{name}_high"]
            chance = entry.task.chance(name, self.records[self.origin[name]])
            if chance is not None:
                row["chance"] = chance
            if (baseline := figure.baseline_of(name)) in self.figures:
                row[figure.baseline] = self.figures[baseline]
            if name in self.untrained:
                row["untrained"] = self.untrained[name]
            table[name] = row
        return table

    def units(self) -> dict[str, dict[str, int]]:
        """Of the table's figures that have an interval, what is drawn for it, and the examples."""
        return {name: self.evaluations[self.origin[name]].sampled(
                    name, self.records[self.origin[name]])
                for name, row in self.headline().items() if "interval" in row}

    def section(self, name: str, examples: pipeline.Reading, seed: int) -> evaluation.Section:
        """A page section: best, worst and random examples of an evaluation, with their clips."""
        entry = self.evaluations[name]
        resolved = pipeline.resolve(entry.stream)
        resolved.views = (1, 1)  # one view of each is shown

        def clip(index):
            return pipeline.eval_clip(examples.record(index), resolved)

        chosen = evaluation.choose(self.records[name], entry.best_by, CARDS.value, seed)
        shown = {key: value for key, value in self.figures.items() if key == f"{name}_skipped"
                 or entry.task.figure(key, entry.kind) and not key.endswith(("_low", "_high"))}
        return evaluation.Section(name.replace("_", " "), shown, groups={
            group: [entry.task.example(record, clip) for record in some]
            for group, some in chosen.items()})


def write(report: Report, config: ConfigDict, origin: evaluation.Origin, read: Any,
          folder: Path) -> None:
    """The page, and every example of each evaluation in a file of its own."""
    for name, entry in report.evaluations.items():
        if VALIDATION.value and config.evals[name].get("submission", ""):
            continue  # its name is that of the test
        submit(report, name, submission(config, name), folder, read(entry.stream))
    sections = [report.section(name, read(entry.stream), config.seed)
                for name, entry in report.evaluations.items()]
    page = evaluation.write_report(folder, contents(report, config, origin), sections)
    for name, entry in report.evaluations.items():
        ordered = records = report.records[name]
        if ORDER.value != "split":
            ordered = evaluation.best_first(records, entry.best_by, worst=ORDER.value == "worst")
        evaluation.write_records(folder / f"{name}.jsonl", ordered)
    logging.info("wrote %s, %s and every example in .jsonl files", folder / "report.json", page)


def submit(report: Report, name: str, file: str, folder: Path, split: pipeline.Reading) -> None:
    """Writes an evaluation's file for a server, or notes why there is none, and what was filled.

    Without a name of its own it is `<name>_submission.json`, where the records have numbers; an
    older one goes.
    """
    task, skipped = report.evaluations[name].task, bool(report.figures.get(f"{name}_skipped", 0))
    path = folder / (file or f"{name}_submission.json")
    path.unlink(missing_ok=True)
    if not task.submissions:
        return
    made = evaluation.submit(task, path, report.records[name], split, skipped)
    if made.total:
        logging.info("wrote %s, %d examples, for the evaluation server", path, made.total)
    elif file or skipped:
        report.absent[path.name] = made.reason
        logging.warning("no %s: %s", path, made.reason)
    if made.filled:
        report.filled[path.name] = made.facts()
        logging.warning("%s: %d of %d examples could not be used and are filled with %r: %s%s",
                        path, len(made.filled), made.total, made.answer,
                        ", ".join(made.filled[:10]),
                        ", ... (report.json has all)" if len(made.filled) > 10 else "")


def contents(report: Report, config: ConfigDict, origin: evaluation.Origin) -> dict[str, Any]:
    """The report: every figure by its name, what a reader compares it with, facts of the run."""
    training = training_facts(paths.parse(CHECKPOINT.value))
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "grain")
    return {
        "title": TITLE,
        "summary": f"{CHECKPOINT.value}, {origin}; "
                   + ("validation" if VALIDATION.value else
                      "test" if origin.warning else "held-out test") + " examples.",
        **({"warning": origin.warning} if origin.warning else {}),
        "checkpoint": origin.facts(),
        "figures": report.headline(),
        "units": report.units(),
        **report.figures,
        "absent": report.absent,
        "filled": report.filled,
        **{f"{name}_untrained": value for name, value in report.untrained.items()},
        "gallery": {name: len(value) for name, value in report.records.items()},
        "examples_per_second": training.get("average_examples_per_second", 0.0),
        "evaluation_examples_per_second": {
            name: speed.rate for name, speed in report.speeds.items()},
        "seed": config.seed,
        "step": origin.step,
        "config": launch.plain(stored.expanded(config)),
        "run": {
            "seed": config.seed, "steps": origin.step, "checkpoint": origin.which,
            "examples per second, training": round(training.get("average_examples_per_second", 0)),
            "examples per second, evaluation": ", ".join(
                f"{name} {speed.rate:,.1f}" for name, speed in report.speeds.items()),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            **{name: importlib.metadata.version(name) for name in packages},
            **({"absent": report.absent} if report.absent else {}),
            **({"filled": {name: f"{len(one['ids'])} of {one['of']} with {one['with']!r}"
                           for name, one in report.filled.items()}} if report.filled else {}),
        },
    }


def training_facts(path: Path) -> dict[str, Any]:
    """The last whole line of a run's `train.jsonl`, or nothing where there is none.

    Args:
      path: the work folder, or a folder of checkpoints in it.
    """
    log = (path.parent if path.name in (LAST, BEST) else path) / "train.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]  # a run may be writing, or was killed
    return json.loads(whole[-1]) if whole else {}


if __name__ == "__main__":
    launch.main(main, distributed=True)
