"""Trains any task of any config, from scratch, from a checkpoint, or on from where it stopped.

    python train.py --config=configs/demo.py --workdir=runs/demo

A run that was stopped goes on by the same command. The work folder holds `checkpoints/`,
TensorBoard files, and `train.jsonl` with every logged step. On several hosts the same command runs
on each of them, with one work folder that all share: `docs/scaling.md`.
"""

import math
import time
from pathlib import Path

import jax
from absl import flags, logging
from clu import parameter_overview
from ml_collections import config_flags

from configs import common
from data import pipeline
from data.pipeline.fingerprint import fingerprint
from mplug2_jax import launch
from mplug2_jax.checkpoints.manager import Checkpoints
from mplug2_jax.evaluation import run as evaluation
from mplug2_jax.model.config import HOW
from mplug2_jax.parallel import hosts, sharding
from mplug2_jax.parallel.mesh import check_batch, data_slice, make_mesh, put_batch
from mplug2_jax.planning.flops import count_flops, peak_flops
from mplug2_jax.preprocess.tokenizer import load_tokenizer
from mplug2_jax.tasks import TASKS
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.progress import Progress
from mplug2_jax.training.runlog import RunLog
from mplug2_jax.training.step import create_state, make_train_step

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's config.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    config, workdir = CONFIG.value, Path(WORKDIR.value)
    model_config = common.validate(config)
    hosts.agree({"config": launch.plain(config), "code": launch.code(),
                 "data": fingerprint(config.data)})
    workdir.mkdir(parents=True, exist_ok=True)
    hosts.require_shared(workdir)
    launch.keep_compilations()
    mesh = make_mesh(**config.mesh)
    for name, stream in config.data.streams.items():
        block = config.task.negative_block if stream.frames else 0
        check_batch(f"data.streams.{name}.batch_size", stream.batch_size, mesh, block,
                    config.task.accumulation)

    # The task: its modules, its losses.
    tokenizer = load_tokenizer(config.data.tokenizer)
    task = TASKS[config.task.name](config.task, model_config, tokenizer)
    task.prepare(lambda: pipeline.references(config.data.root, config.data.streams))
    optimizer, learning_rate = make_optimizer(config.optimizer)

    # The state: shapes first, so that all that can fail does so before memory is taken.
    def create(params=None):
        return create_state(task, optimizer, config.seed, config.optimizer.ema_decay > 0, params)

    shapes = jax.eval_shape(create)
    logging.info("\n%s", parameter_overview.get_parameter_overview(
        shapes.params, include_stats=False))
    logging.info("mesh %s; %.2f%% of parameter bytes sharded", dict(mesh.shape),
                 100 * sharding.sharded_share(shapes.params, mesh))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    sizes = {name: stream.batch_size for name, stream in config.data.streams.items()}
    positions = {name: 0 for name in sizes}  # global samples seen of each stream
    if checkpoints.latest is not None:
        meta = checkpoints.meta()
        stored = launch.plain(common.completed(meta["config"]).model)
        launch.require_same("model", stored, launch.plain(config.model), HOW)
        positions |= {name: meta["samples"].get(name, 0) for name in sizes}
        state = checkpoints.restore_state(shapes, mesh)
        logging.info("going on from step %d of %s", checkpoints.latest, checkpoints.folder)
    else:
        params = None
        if config.init_from:
            source = Checkpoints(evaluation.checkpoint_folder(config.init_from))
            params = source.load_params(shapes.params, mesh, config.allow_new)
            source.close()
        state = sharding.init_sharded(create, mesh, params)

    # The data goes on at the sample where the state stopped, also with other batch sizes.
    start = int(state.step)
    skips = pipeline.SkipLog(config.data.max_skipped, workdir / hosts.own_file("skipped.jsonl"))
    batches = pipeline.prefetch_to_device(
        pipeline.train_batches(
            config.data.root, config.data.streams, tokenizer, config.seed, positions,
            *data_slice(mesh), config.data.threads, skips, config.data.workers),
        lambda batch: put_batch(batch, mesh))
    step_function = make_train_step(task, optimizer, shapes, mesh, config.seed,
                                    config.optimizer.frozen, config.optimizer.ema_decay)
    evaluations = evaluation.build(config, model_config, tokenizer, validation=True)

    progress, batch = None, next(batches)
    flops = 3 * count_flops(task.loss, shapes.params, batch, jax.random.key(0))
    with RunLog(workdir, start) as log:
        for step in range(start + 1, config.optimizer.steps + 1):
            with jax.transfer_guard("disallow"):
                state, metrics = step_function(state, batch)
            if step < config.optimizer.steps:
                batch = next(batches)  # while the device computes
            if progress is None:
                jax.block_until_ready(metrics)  # the first step compiles: not timed
                progress = Progress(step, config.optimizer.steps, sum(sizes.values()), flops,
                                    peak_flops())
            if step % config.log_every == 0 or step == config.optimizer.steps:
                values = {name: float(value) for name, value in jax.device_get(metrics).items()}
                if not math.isfinite(values["loss"]):
                    raise FloatingPointError(f"step {step}: the loss is {values['loss']}; lower "
                                             "optimizer.learning_rate or clip_norm and start again "
                                             "from the last checkpoint")
                speed = progress.measure(step)
                logging.info("%s", progress.line(step, values, speed))
                log.step(step, values | speed | {"learning_rate": float(learning_rate(step)),
                                                 "skipped": hosts.total(skips.total())})
            if step % config.checkpoint_every == 0 or step == config.optimizer.steps:
                checkpoints.save(state, launch.plain(config),
                                 {name: positions[name] + (step - start) * size
                                  for name, size in sizes.items()})
            if config.eval_every and step % config.eval_every == 0:
                paused = time.perf_counter()
                scores, _ = evaluation.run(evaluations, config, tokenizer, state.averaged, mesh,
                                           config.eval_limit)
                logging.info("validation at step %d: %s", step, evaluation.summary(scores))
                log.scores(step, {f"validation/{name}": value for name, value in scores.items()})
                progress.pause(time.perf_counter() - paused)
    checkpoints.close()
    for (source, reason), count in sorted(skips.counts.items()):
        logging.warning("skipped %d of %s: %s", count, source, reason)
    logging.info("done: %d steps, %s", config.optimizer.steps, workdir)


if __name__ == "__main__":
    launch.main(main, distributed=True)
