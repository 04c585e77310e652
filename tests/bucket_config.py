"""What the tests of a run in a bucket train: captions of clips, and text alone."""

import steady_config


def get_config():
    config = steady_config.get_config()
    for name in ("vtc", "mlm"):
        config.task.objectives[name] = 0.0
    del config.evals.video_retrieval
    return config
