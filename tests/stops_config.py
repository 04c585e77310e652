"""What the tests of stopping train: text alone, so that a process is there in seconds."""

import e2e_config


def get_config():
    config = e2e_config.get_config()
    streams = config.data.streams
    for name in set(streams) - {"text"}:
        del streams[name]
    for name in config.task.objectives:
        config.task.objectives[name] = float(name == "mlm")
    for name in list(config.evals):
        del config.evals[name]
    config.optimizer.update(dict(steps=24, warmup_steps=2))
    config.log_every, config.checkpoint_every, config.eval_every = 1, 100, 0
    return config
