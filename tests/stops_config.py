"""What the tests of stopping train: text alone, so that a process is there in seconds."""

import e2e_config

from configs import common


def get_config(validated=""):
    """Of the model what texts need; with an argument, validated on other texts by their loss."""
    config = e2e_config.get_config()
    streams = config.data.streams
    for name in set(streams) - {"text"}:
        del streams[name]
    for name in config.task.objectives:
        config.task.objectives[name] = float(name == "mlm")
    config.task.inputs = "text"
    for name in list(config.evals):
        del config.evals[name]
    config.optimizer.update(dict(steps=24, warmup_steps=2))
    config.log_every, config.checkpoint_every, config.eval_every = 1, 100, 0
    if validated:
        streams.text.split, held_out = "text_train[rest]", "text_train[held_out]"
        config.evals.held_out = common.evaluation(
            "pretrain", held_out, 4, held_out, options=common.named(config.task), text_length=24)
        config.eval_every, config.best = 2, "text_held_out_loss"
        config.select_on_test = True
    return config
