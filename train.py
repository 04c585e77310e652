"""Trains any task of any config, from scratch, from a checkpoint, or on from where it stopped.

    python train.py --config=configs/demo.py --workdir=runs/demo
    python train.py --config=configs/demo.py --help_config    # every key with its comment

A run that was stopped goes on by the same command. The work folder holds `checkpoints/`, `best/`
where `best` names a figure, TensorBoard files, `train.jsonl` with every logged step and
`validation.jsonl` with every validation, and `starts.jsonl` with every start. On several hosts the
same command runs on each of them, with one work folder that all share: `docs/scaling.md`. How a run
is stopped, and its exit codes: `docs/reliability.md`.
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import checks, keys, selection, stored
from data import pipeline
from mplug2_jax import evaluation, launch, places, tasks
from mplug2_jax.checkpoints import BEST, LAST, Best, Checkpoints, find_folder
from mplug2_jax.contracts import exits
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.config import HOW, ModelConfig
from mplug2_jax.parallel import hosts, sharding
from mplug2_jax.parallel.mesh import data_slice, feeding_alike, make_mesh, put_batch, shards_of
from mplug2_jax.planning.chips import peak_flops
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.preprocess.tokenizer import Tokenizer, load_tokenizer
from mplug2_jax.training import starts
from mplug2_jax.training.health import Health
from mplug2_jax.training.measures import amounts, norms
from mplug2_jax.training.optimizer import make_optimizer, rates_of
from mplug2_jax.training.progress import Progress
from mplug2_jax.training.replay import replay
from mplug2_jax.training.runlog import LOGS, RunLog
from mplug2_jax.training.state import TrainState, create_state, restore_state
from mplug2_jax.training.step import TrainStep, loss_and_gradient, make_train_step
from mplug2_jax.training.vigil import Vigil

CONFIG = launch.define_config("The run's config.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs.")
GRACE = flags.DEFINE_float("grace", 30, "Seconds from a signal to the end, in which the run saves.",
                           lower_bound=1)
STUCK = flags.DEFINE_float("stuck_after", 600, "Seconds without an ended step, after which the "
                           "process says what it waits for and ends; 0 for never.", lower_bound=0)
REPLAY = flags.DEFINE_integer(
    "replay", 0, "Run on from the checkpoint before this step to it, save nothing, and say which "
                 "module first made a value that is no number.")
HELP = flags.DEFINE_bool("help_config", False, "Print every key of the config, and end.")
flags.mark_flag_as_required("config")
SKIPPED = "skipped.jsonl"  # of the work folder
PARAMETER_NORMS = jax.jit(functools.partial(norms, "param_norm"))  # where they are logged alone


@dataclasses.dataclass
class Run:
    """What stays the same over the steps of a run.

    Attributes:
      config, workdir: of the command line.
      checked: what of the config is used as it is.
      mesh: over all devices.
      tokenizer: of all text.
      task: that is learned.
      vigil: over its loop.
      data: fingerprints of what it reads.
      skips: records that could not be used.
    """

    config: ConfigDict
    workdir: Path
    checked: checks.Checked
    mesh: Mesh
    tokenizer: Tokenizer
    task: tasks.Task
    vigil: Vigil
    data: dict[str, str]
    skips: pipeline.SkipLog

    @property
    def sizes(self) -> dict[str, int]:
        """Examples a step of every stream."""
        return {name: stream.batch_size for name, stream in self.checked.streams.items()}

    def samples(self, positions: dict[str, int], steps: int) -> dict[str, int]:
        """Samples seen of every stream, so many steps after `positions`."""
        return {name: positions[name] + steps * size for name, size in self.sizes.items()}

    def read(self, stream: Any) -> pipeline.Reading:
        """A split to evaluate."""
        data = self.config.data
        return pipeline.Reading(data.root, stream, self.tokenizer, data_slice(self.mesh),
                                self.vigil.put(self.put), data.threads, data.workers,
                                shards_of(self.mesh))

    def names(self) -> pipeline.Names:
        """The names of the records that it reads."""
        return pipeline.Names(self.config.data.root, self.checked.streams)

    def put(self, batch: Any) -> Any:
        """A host batch on the devices."""
        return put_batch(batch, self.mesh)


def main() -> int:
    if HELP.value:
        print(keys.help_text(CONFIG.value))
        return exits.DONE
    run = prepare(CONFIG.value, WORKDIR.value)
    if REPLAY.value:
        return replay_step(run, REPLAY.value)
    return train(run)


def train(run: Run) -> int:
    """Trains to the last step, or until the run is stopped; gives the exit code."""
    checkpoints = Checkpoints(run.workdir / LAST, run.config.keep_checkpoints,
                              run.config.keep_every)
    optimizer, rates, create = learner(run)
    validation = validations(run, fresh=checkpoints.latest is None)
    state, positions = restore(run, checkpoints, create)
    config, vigil = run.config, run.vigil
    start, last_step = int(state.step), config.optimizer.steps
    starts.record(run.workdir, start, described(config), run.data, run.mesh.shape, vigil)
    batches = training_batches(run, positions)
    epochs = said_epochs(run)
    health = Health(run.workdir, start, config.guard, state.params, run.mesh, run.names())
    step_function = compiled_step(run, optimizer, create)

    def moment(step):
        return evaluation.Moment(step, state.averaged, state.items(), described(config),
                                 run.samples(positions, step - start))

    def save(step):
        with vigil.during("a save"):
            health.check(step, state.params, saving=True)
            now = moment(step)
            checkpoints.save(step, now.items, now.config, now.samples)

    progress, batch = None, next(batches)
    flops = 3 * count_flops(run.task.loss, state.params, batch, jax.random.key(0))
    amount = amounts(batch)
    with (checkpoints, validation, RunLog(run.workdir, start) as log,
          vigil.over(start, lambda: checkpoints.latest, save)):
        if validation.due(start) and not log.validated:  # the run ended in between
            log.validation(start, validation.run(moment(start)))
        for step in range(start + 1, last_step + 1):
            last = step == last_step
            with jax.transfer_guard("disallow"):
                state, metrics = step_function(state, batch)
            vigil.dispatched(step, metrics)  # the first step compiles: not timed
            health.count(step, metrics, batch)
            if not last:
                batch = vigil.next(batches)  # while the device computes
            if progress is None:
                progress = Progress(step, last_step, amount, flops, peak_flops(), run.task.figures)
            progress.count(step, metrics)
            if step % config.log_every == 0 or last:
                values = (fetched(metrics | PARAMETER_NORMS(state.params), step, rates)
                          | skipped(run) | epochs.at(run.samples(positions, step - start)))
                log.step(step, progress.report(step, beside(values, run.task.weights)))
            health.check(step, state.params)
            if step % config.checkpoint_every == 0 or last:
                save(step)
            if validation.due(step):
                with progress.paused(), vigil.during("a validation"):
                    log.validation(step, validation.run(moment(step)))
            if not last:
                vigil.sync(step)
    run.skips.report()
    return vigil.end(f"{last_step} steps, {run.workdir}")


def learner(run: Run) -> tuple[Any, Any, Any]:
    """The optimizer, the rates that it has, and what makes a fresh state."""
    options = run.config.optimizer
    optimizer, rates = make_optimizer(options)
    if "vision" not in run.task.model.modules:
        del rates["vision_learning_rate"]
    return optimizer, rates, functools.partial(
        create_state, run.task, optimizer, run.config.seed, options.ema_decay > 0,
        spike_window=run.config.guard.spike_window)


def compiled_step(run: Run, optimizer: Any, create: Any) -> TrainStep:
    """The step of the run."""
    config = run.config
    return make_train_step(
        run.task, optimizer, jax.eval_shape(create), run.mesh, config.seed,
        config.optimizer.frozen, config.optimizer.ema_decay, config.guard.spike_deviations)


def replay_step(run: Run, step: int) -> int:
    """Says what the first value of a step that is no number comes of; the run stays as it is."""
    if hosts.several():
        raise ConfigError("--replay: runs in one process (--processes=1)")
    optimizer, _, create = learner(run)
    checkpoints = Checkpoints(run.workdir / LAST, begins_anew=True, most=step - 1)
    state, positions = restore(run, checkpoints, create)  # or from where the run began
    found = replay(state, training_batches(run, positions), step,
                   compiled_step(run, optimizer, create),
                   loss_and_gradient(run.task, run.config.seed, run.config.optimizer.frozen))
    print(f"step {step}: " + (found or "all its values are finite, or none that was not in a step "
                                       "that went well"))
    return exits.DONE


def said_epochs(run: Run) -> pipeline.Epochs:
    """The epochs of each stream; the log says over what they go, and in how many steps."""
    epochs = pipeline.Epochs(run.config.data.root, run.checked.streams, run.config.seed)
    for name, (units, said) in epochs.lengths().items():
        logging.info("stream %s: an epoch goes over %s %s, %.1f steps", name, f"{units:,}", said,
                     units / run.sizes[name])
    return epochs


def described(config: ConfigDict) -> dict[str, Any]:
    """The config with every key, as plain values."""
    return launch.plain(stored.expanded(config))


def prepare(config: ConfigDict, folder: str | None) -> Run:
    """All that can fail before memory is taken: the config, the hosts, the mesh, the task.

    Raises:
      ConfigError: of the config or the flags. HostError: processes that do not fit each other.
    """
    workdir = Path(launch.given("workdir", folder))
    checked = checks.validate(config)
    data = pipeline.fingerprint(config.data)
    hosts.agree({"config": described(config), "code": launch.code(), "data": data})
    places.check_folder("--workdir", workdir, (*LOGS, starts.STARTS, hosts.own_file(SKIPPED)),
                        (LAST, starts.FOLDER, *((BEST,) if config.best else ())))
    hosts.require_shared(workdir)
    vigil = Vigil(workdir, GRACE.value, 0 if REPLAY.value else STUCK.value)
    launch.keep_compilations()
    mesh = make_mesh(**config.mesh)
    tokenizer = load_tokenizer(config.data.tokenizer)
    task = tasks.make(config.task, checked.model, tokenizer)
    task.prepare(lambda: pipeline.references(config.data.root, checked.streams))
    task.check_mesh(checked.streams, mesh)  # which traces a loss of one's own
    if config.eval_every:
        for name in selection.trained_on(config.data.root, checked.streams, checked.evaluations, {
                name: entry.validation for name, entry in config.evals.items()}):
            logging.warning("evals.%s.validation: training reads these examples, too", name)
    skips = pipeline.SkipLog(config.data.max_skipped, None if REPLAY.value else
                             workdir / hosts.own_file(SKIPPED))
    return Run(config, workdir, checked, mesh, tokenizer, task, vigil, data, skips)


def restore(run: Run, checkpoints: Checkpoints, create: Any) -> tuple[TrainState, dict[str, int]]:
    """The state to go on from, or a fresh one; and the samples seen of every stream.

    Shapes come first, so that all that can fail does so before memory is taken.
    """
    config, mesh = run.config, run.mesh
    shapes = jax.eval_shape(create)
    logging.info("\n%s", parameter_overview.get_parameter_overview(
        shapes.params, include_stats=False))
    logging.info("mesh %s; %.2f%% of parameter bytes sharded", dict(mesh.shape),
                 100 * sharding.sharded_share(shapes.params, mesh))
    positions = {name: 0 for name in run.sizes}
    if hosts.is_first():
        warn_of_room(run, shapes)
    if checkpoints.latest is not None:
        return checkpoints.first_good(lambda: go_on(run, checkpoints, shapes))
    params = task_state = None
    if config.init_from:
        source = Checkpoints(find_folder(config.init_from))
        params, task_state = source.first_good(lambda: (
            source.load_params(shapes.params, mesh, config.allow_new),
            source.load_task_state(shapes.task_state, mesh, config.allow_new)))
    return sharding.init_sharded(create, mesh, params, task_state), positions


def go_on(run: Run, checkpoints: Checkpoints, shapes: TrainState
          ) -> tuple[TrainState, dict[str, int]]:
    """The state of the newest checkpoint, and the samples seen of every stream."""
    meta = checkpoints.meta()
    before = stored.completed(meta)
    launch.require_same("model", vars(ModelConfig.from_mapping(before.model)),
                        vars(run.checked.model), HOW)
    run.config = stored.gone_on(run.config, before)
    run.checked = checks.validate(run.config)
    state = restore_state(checkpoints, shapes, run.mesh, run.task)
    logging.info("going on from step %d of %s", checkpoints.latest, checkpoints.folder)
    return state, {name: meta["samples"].get(name, 0) for name in run.sizes}


def warn_of_room(run: Run, shapes: TrainState) -> None:
    """Warns where the checkpoints to come may not have room, as far as they are not there yet."""
    def bytes_of(tree: Any) -> int:
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)
                   if hasattr(x, "shape"))

    keep, whole = run.config.keep_checkpoints, bytes_of(shapes.items())
    best = bytes_of((shapes.params, shapes.ema)) if run.config.best else 0
    # One more than are kept, for the newest is whole before the oldest goes.
    there = sum(places.size(run.workdir / name) for name in (LAST, BEST))
    places.warn_of_room("--workdir", run.workdir, (keep + 1) * whole + 2 * best - there,
                        f"keep_checkpoints = {keep} of {whole / places.GIB:.1f} GiB, and one more "
                        "while it is written")


def validations(run: Run, fresh: bool) -> evaluation.Validation:
    """The validation of the run, its splits opened once, and what the best checkpoint is.

    Args:
      run: the run.
      fresh: whether it begins.

    Raises:
      ConfigError, DataError: a split cannot be validated on.
    """
    config, chosen = run.config, run.checked.selection
    entries = evaluation.distinct(evaluation.build(
        config.evals, run.checked.evaluations, run.checked.model, run.tokenizer, validation=True),
        chosen.figure if chosen else "")
    best = note = None
    if chosen is not None:
        about = dict(figure=chosen.figure, root=chosen.root, split=chosen.split,
                     limit=chosen.limit, selected_on_test=chosen.on_test)
        best = Best(run.workdir, chosen.better, about, fresh)
        note = "selected on test" if chosen.on_test else None
    found = evaluation.Validation(
        entries, run.read, run.mesh, config.eval_every, config.optimizer.steps, config.eval_limit,
        best, chosen.figure if chosen else "", note or "")
    found.check(run.task)
    return found


def training_batches(run: Run, positions: dict[str, int]) -> Iterator[Any]:
    """Batches on the devices, from the samples on where the state stopped."""
    data = run.config.data
    return pipeline.prefetch_to_device(
        pipeline.train_batches(
            data.root, run.checked.streams, run.tokenizer, run.config.seed, positions,
            *data_slice(run.mesh), data.threads, run.skips, data.workers, run.vigil.idle), run.put)


def fetched(metrics: dict[str, jax.Array], step: int, rates: Any) -> dict[str, float]:
    """A step's metrics on the host, and the learning rates, which skipped steps did not move."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    return values | rates_of(step - int(values["skipped_steps"]), rates)


def beside(values: dict[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """The values, and beside each `stream/part` of the loss its `stream/part_weight`."""
    parts = ((name, name.partition("/")[2]) for name in values)
    return values | {f"{name}_weight": float(weights[part])
                     for name, part in parts if part in weights}


def skipped(run: Run) -> dict[str, int]:
    """Records skipped so far by all hosts, `skipped`, and `skipped/reason` of each reason."""
    reasons: Counter[str] = Counter()
    for (_, reason), count in run.skips.counts.items():
        reasons[reason] += count
    alike = feeding_alike(run.mesh)
    found = {reason: count // alike for reason, count in hosts.totals(reasons).items()}
    return {"skipped": sum(found.values())} | {
        f"skipped/{reason}": count for reason, count in found.items()}


if __name__ == "__main__":
    launch.main(main, distributed=True)
