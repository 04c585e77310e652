"""Many runs in one process: what they compile is shared, for that takes most of their time."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from configs import checks
from mplug2_jax import evaluation, tasks
from mplug2_jax.contracts.options import section


def set_flags(script: Any, **values: Any) -> None:
    """Gives a script's flags these values."""
    for name, value in values.items():
        setattr(script, name, SimpleNamespace(name=name.lower(), value=value))


def share_training(train: Any) -> None:
    """Compiles one step of equal tasks, models, optimizers and shapes, for `train` (train.py).

    Parameters that no weights give are drawn by NumPy, for their initialisers take as long to
    compile. No FLOPs are counted or measured.
    """
    created, steps = {}, {}
    create_state, make_train_step = train.create_state, train.make_train_step

    def key(task, options) -> str:
        same = section(task.options) | dict(classes=task.head_sizes(task.options), rerank=0)
        return repr((type(task), same, task.model.config, options.to_dict()))

    def drawn_state(task, optimizer, seed, averages, params=None, task_state=None,
                    spike_window=0):
        name = key(task, train.CONFIG.value.optimizer)
        if name not in created:
            shapes = jax.eval_shape(lambda: create_state(task, optimizer, seed, averages))
            created[name] = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        if params is None:
            return created[name]
        rng = np.random.default_rng(0)
        fresh = created[name].params
        filled = jax.tree_util.tree_map_with_path(
            lambda path, old, x: draw(rng, path, x) if old is None else old, params, fresh,
            is_leaf=lambda x: x is None)
        return create_state(task, optimizer, seed, averages, filled, task_state)

    def draw(rng, path, x):
        start = {"scale": 1.0, "temperature": 0.07}.get(path[-1].key, 0.0)
        return (start + rng.normal(0, 0.01, x.shape)).astype(x.dtype)

    def put_state(create, mesh, params, task_state):
        assert params is not None  # every walk begins with weights
        state = jax.tree.map(np.array, create(params, task_state))  # a step writes where it reads
        return jax.device_put(state, train.sharding.tree_shardings(state, mesh))

    def shared_step(task, optimizer, shapes, mesh, *more):
        streams = [(s.frames, s.text_length, s.prompt_length, s.target_length, s.ask)
                   for s in checks.validate(train.CONFIG.value).streams.values()]
        rewards = train.WORKDIR.value if hasattr(task, "reward") else ""  # of its own references
        name = (key(task, train.CONFIG.value.optimizer), repr((streams, more)), rewards)
        if name not in steps:
            steps[name] = make_train_step(task, optimizer, shapes, mesh, *more)
        return steps[name]

    train.create_state, train.make_train_step = drawn_state, shared_step
    train.sharding.init_sharded = put_state
    train.count_flops, train.peak_flops = lambda *_: 1, lambda: 1.0


def made_once(kept: dict[str, tasks.Task]) -> SimpleNamespace:
    """`tasks`, but equal ones are made once, and `kept`: they share what is traced and compiled."""

    def made(given, model, tokenizer, evaluates):
        name = json.dumps([given.to_dict(), vars(model)], default=str)
        if name not in kept:
            kept[name] = tasks.make(given, model, tokenizer, evaluates)
        return kept[name]

    return SimpleNamespace(**vars(tasks) | {"make": made})


def share_evaluation(script: Any) -> None:
    """Compiles evaluations of equal tasks once, for `script` (eval.py); gives no intervals."""
    evaluation.run.__globals__["tasks"] = made_once({})
    script.evaluation = SimpleNamespace(**vars(evaluation) | {
        "run": lambda *given, with_intervals=False: evaluation.run(*given)})
