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
from collections.abc import Callable, Iterator
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
from mplug2_jax.checkpoints import BEST, LAST, Best, Checkpoints, LocalCheckpoints, find_folder
from mplug2_jax.contracts import exits, paths
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.config import HOW, ModelConfig
from mplug2_jax.parallel import accelerators, hosts, sharding
from mplug2_jax.parallel.mesh import data_slice, make_mesh, put_batch, shards_of
from mplug2_jax.planning.chips import peak_flops
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.preprocess.tokenizer import Tokenizer, load_tokenizer
from mplug2_jax.training import starts
from mplug2_jax.training.guard import emptied
from mplug2_jax.training.health import Health
from mplug2_jax.training.loop import Loop
from mplug2_jax.training.measures import amounts, beside, fetched, norms, skipped
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.pace import PLANNED, Pace
from mplug2_jax.training.progress import Progress
from mplug2_jax.training.replay import replay
from mplug2_jax.training.room import warn_of_room
from mplug2_jax.training.runlog import LOGS, RunLog
from mplug2_jax.training.state import TrainState, create_state, restore_local, restore_state
from mplug2_jax.training.step import TrainStep, loss_and_gradient, make_train_step
from mplug2_jax.training.trace import Trace
from mplug2_jax.training.vigil import Vigil
from mplug2_jax.training.writers import WandB, require_wandb

CONFIG = launch.define_config("The run's config.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs.")
GRACE = flags.DEFINE_float("grace", 30, "Seconds from a signal to the end, in which the run saves.",
                           lower_bound=1)
STUCK = flags.DEFINE_float("stuck_after", 600, "Seconds without an ended step, after which the "
                           "process says what it waits for and ends; 0 for never.", lower_bound=0)
LOCAL = flags.DEFINE_string("local", None, "Folder on each host's own disk for more checkpoints.")
LOCAL_EVERY = flags.DEFINE_integer("local_every", 100, "Steps from one of them to the next.",
                                   lower_bound=1)
REPLAY = flags.DEFINE_integer("replay", 0, "Run to this step from the checkpoint before, save "
                              "nothing, and name the module that first made no number.")
PROFILE = flags.DEFINE_integer("profile", 0, "Steps to trace for xprof, after the first ones; the "
                               "log then names the heaviest operations.", lower_bound=0)
WANDB = flags.DEFINE_string("wandb", None, "Project of Weights & Biases that gets the figures, too "
                            "(WANDB_MODE=offline: for later).")
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
      pace: how its steps count.
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
    pace: Pace = PLANNED

    @property
    def sizes(self) -> dict[str, int]:
        """Examples a step of every stream."""
        return {name: stream.batch_size for name, stream in self.checked.streams.items()}

    def samples(self, positions: dict[str, int], steps: int) -> dict[str, int]:
        """Samples seen of every stream, so many steps after `positions`.

        Also of those that the run had and has no more, for they may come again.
        """
        return {name: seen + steps * self.sizes.get(name, 0) for name, seen in positions.items()}

    def read(self, stream: Any) -> pipeline.Reading:
        """A split to evaluate."""
        data = self.config.data
        return pipeline.Reading(data.root, stream, self.tokenizer, data_slice(self.mesh),
                                self.vigil.put(self.put), data.threads, data.workers,
                                shards_of(self.mesh))

    def names(self) -> pipeline.Names:
        """The names of the records that it reads."""
        return pipeline.Names(self.config.data.root, self.checked.streams)

    def log(self, start: int) -> RunLog:
        """The logs of a run that goes on after a step."""
        writers = [WandB(WANDB.value, self.workdir, self.workdir / starts.STARTS,
                         described(self.config))] if WANDB.value and hosts.is_first() else []
        return RunLog(self.workdir, start, self.vigil.ledger, writers)

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
    try:
        return train(run)
    finally:
        run.skips.settle()


def train(run: Run) -> int:
    """Trains to the last step, or until the run is stopped; gives the exit code."""
    checkpoints = Checkpoints(run.workdir / LAST, run.config.keep_checkpoints,
                              run.config.keep_every)
    local = LocalCheckpoints(run.workdir, LOCAL.value, LOCAL_EVERY.value)
    create = fresh(run)
    validation = validations(run)
    state, positions = restore(run, checkpoints, create, local)
    config, vigil = run.config, run.vigil
    start, last = int(state.step), run.pace.last(config.optimizer.steps)
    validation = dataclasses.replace(validation, last=last, best=kept_best(run, fresh=not start))
    starts.record(run.workdir, start, described(config), run.data, run.mesh.shape, vigil)
    batches = training_batches(run, positions)

    def moment(step, state):
        return evaluation.Moment(step, state.averaged, state.items(), described(config),
                                 run.samples(positions, step - start))

    figures = line_of(run, lambda step: run.samples(positions, step - start))
    health = Health(run.workdir, start, config.guard, state.params, run.mesh, run.names())
    step_function, batch = compiled_step(run, create), next(batches)
    flops = 3 * count_flops(run.task.loss, state.params, batch, jax.random.key(0))
    progress = Progress(last, amounts(batch), flops, peak_flops, run.task.figures, vigil.ledger)
    log = run.log(start)
    loop = Loop(state, step_function, batches, last, config.log_every, config.checkpoint_every,
                vigil, health, log, progress, checkpoints, local, validation, moment, figures,
                run.pace.plain())
    del state  # the loop's, whose steps take its buffers
    with (log, vigil.saving(), local, checkpoints, validation,
          Trace(PROFILE.value, start, run.workdir, vigil) as trace,
          vigil.over(start, lambda: checkpoints.latest, loop.save)):
        loop.run(start, batch, trace)
    run.skips.report()
    return vigil.end(f"{last} steps, {run.workdir}")


def line_of(run: Run, samples: Callable[[int], dict[str, int]]) -> Callable[..., dict[str, float]]:
    """What gives a step's figures for the log, but its speed; of `samples` seen after a step."""
    epochs, rates = said_epochs(run), learner(run)[1]

    def figures(step, metrics, state):
        values = (fetched(metrics | PARAMETER_NORMS(state.params), step, rates)
                  | skipped(run.skips.counts, run.mesh) | epochs.at(samples(step)))
        return beside(values, run.task.weights)

    return figures


def learner(run: Run) -> tuple[Any, Any]:
    """The optimizer, and the rates that it has."""
    optimizer, rates = make_optimizer(run.config.optimizer, run.pace)
    if "vision" not in run.task.model.modules:
        del rates["vision_learning_rate"]
    return optimizer, rates


def fresh(run: Run) -> Any:
    """What makes a fresh state."""
    return functools.partial(
        create_state, run.task, learner(run)[0], run.config.seed,
        run.config.optimizer.ema_decay > 0, spike_window=run.config.guard.spike_window)


@functools.cache
def shapes_of(create: Any) -> TrainState:
    """The shapes of the state that it makes; finding them traces the whole model."""
    return jax.eval_shape(create)


def compiled_step(run: Run, create: Any) -> TrainStep:
    """The step of the run."""
    config = run.config
    return make_train_step(
        run.task, learner(run)[0], shapes_of(create), run.mesh, config.seed,
        config.optimizer.frozen, config.optimizer.ema_decay, config.guard.spike_deviations,
        run.pace)


def replay_step(run: Run, step: int) -> int:
    """Says what the first value of a step that is no number comes of; the run stays as it is."""
    if hosts.several():
        raise ConfigError("--replay: runs in one process (--processes=1)")
    create = fresh(run)
    checkpoints = Checkpoints(run.workdir / LAST, begins_anew=True, most=step - 1)
    state, positions = restore(run, checkpoints, create)  # or from where the run began
    found = replay(state, training_batches(run, positions), step,
                   compiled_step(run, create),
                   loss_and_gradient(run.task, run.config.seed, run.config.optimizer.frozen,
                                     run.pace))
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
      MachineError: JAX would not use the machine's TPU or GPU.
    """
    workdir = paths.parse(launch.given("workdir", folder), "--workdir")
    checked = checks.validate(config)
    data = pipeline.fingerprint(config.data, config.evals if config.eval_every else None)
    accelerators.check()
    logging.info("%s", accelerators.describe())
    whole = described(config)
    hosts.agree({"config": whole, "code": launch.code(), "data": data,
                 "files": launch.files_of(whole),
                 "flags": {"--local": bool(LOCAL.value), "--local_every": LOCAL_EVERY.value}})
    if LOCAL.value:
        if LOCAL_EVERY.value >= config.checkpoint_every:
            raise ConfigError(f"--local_every={LOCAL_EVERY.value}: expected less than "
                              f"checkpoint_every = {config.checkpoint_every}")
        places.check_folder("--local", LOCAL.value, local=True)
    places.check_folder("--workdir", workdir, (*LOGS, starts.STARTS, hosts.own_file(SKIPPED)),
                        (LAST, starts.FOLDER, *((BEST,) if config.best else ())))
    hosts.require_shared(workdir)
    if WANDB.value and hosts.is_first():
        require_wandb(workdir)
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


def restore(run: Run, checkpoints: Checkpoints, create: Any, local: LocalCheckpoints | None = None
            ) -> tuple[TrainState, dict[str, int]]:
    """The state to go on from, or a fresh one; and the samples seen of every stream.

    Shapes come first, so that all that can fail does so before memory is taken.
    """
    config, mesh = run.config, run.mesh
    shapes = shapes_of(create)
    logging.info("\n%s", parameter_overview.get_parameter_overview(
        shapes.params, include_stats=False))
    logging.info("mesh %s; %.2f%% of parameter bytes sharded", dict(mesh.shape),
                 100 * sharding.sharded_share(shapes.params, mesh))
    positions = {name: 0 for name in run.sizes}
    if hosts.is_first():
        warn_of_room(run.workdir, shapes, config.keep_checkpoints, bool(config.best))

    def newest():
        found = local and local.first_good(checkpoints.latest, shapes.items(), mesh, lambda: go_on(
            run, local, lambda: restore_local(local, shapes, mesh)))
        if found is None and checkpoints.latest is not None:
            found = go_on(run, checkpoints,
                          lambda: restore_state(checkpoints, shapes, mesh, run.task))
        return found

    if (found := checkpoints.first_good(newest)) is not None:
        return found
    params = task_state = None
    if config.init_from:
        source = Checkpoints(find_folder(config.init_from))
        params, task_state = source.first_good(lambda: (
            source.load_params(shapes.params, mesh, config.allow_new),
            source.load_task_state(shapes.task_state, mesh, config.allow_new)))
    return sharding.init_sharded(create, mesh, params, task_state), positions


def go_on(run: Run, checkpoints: Checkpoints | LocalCheckpoints, read: Callable[[], TrainState]
          ) -> tuple[TrainState, dict[str, int]]:
    """The state that `read` gives of the newest checkpoint, and the samples seen of every stream.
    """
    meta = checkpoints.meta()
    before = stored.completed(meta)
    launch.require_same("model", vars(ModelConfig.from_mapping(before.model)),
                        vars(run.checked.model), HOW)
    run.config = stored.gone_on(run.config, before)
    run.checked = checks.validate(run.config)
    state = read()
    logging.info("going on from step %d of %s", checkpoints.latest, checkpoints.folder)
    step, sizes = int(state.step), {
        name: stream.batch_size for name, stream in before.data.streams.items()}
    pace = Pace.read(meta.get("pace"))
    run.pace = pace.changed(step, step - int(state.skipped), sizes, run.sizes)
    if run.pace != pace:
        state = state.replace(guard=emptied(state.guard))
    return state, dict.fromkeys(run.sizes, 0) | meta["samples"]


def validations(run: Run) -> evaluation.Validation:
    """The validation of the run, its splits opened once; it keeps no best checkpoint yet.

    Raises:
      ConfigError, DataError: a split cannot be validated on.
    """
    config, chosen = run.config, run.checked.selection
    entries = evaluation.distinct(evaluation.build(
        config.evals, run.checked.evaluations, run.checked.model, run.tokenizer, validation=True),
        chosen.figure if chosen else "")
    found = evaluation.Validation(
        entries, run.read, run.mesh, config.eval_every, config.optimizer.steps, config.eval_limit,
        figure=chosen.figure if chosen else "",
        note="selected on test" if chosen and chosen.on_test else "")
    found.check(run.task)
    return found


def kept_best(run: Run, fresh: bool) -> Best | None:
    """The best checkpoint so far, if the run chooses one; `fresh` where it begins at step 0.

    That is known once it has found what it goes on from: there may be checkpoints that do not fit.
    """
    chosen = run.checked.selection
    if chosen is None:
        return None
    about = dict(figure=chosen.figure, root=chosen.root, split=chosen.split, limit=chosen.limit,
                 selected_on_test=chosen.on_test)
    return Best(run.workdir, chosen.better, about, fresh)


def training_batches(run: Run, positions: dict[str, int]) -> Iterator[Any]:
    """Batches on the devices, from the samples on where the state stopped."""
    data = run.config.data
    return pipeline.prefetch_to_device(
        pipeline.train_batches(
            data.root, run.checked.streams, run.tokenizer, run.config.seed, positions,
            *data_slice(run.mesh), data.threads, run.skips, data.workers, run.vigil.idle), run.put)


if __name__ == "__main__":
    launch.main(main, distributed=True)
