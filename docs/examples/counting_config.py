"""The config of `counting.py`, which lies beside it: its folder must be on PYTHONPATH."""

from configs import common


def get_config():
    config = common.base("tiny")
    config.model.update(dict(vocab_size=352, image_size=48, patch_size=16, vision_layers=1))
    config.task = common.task("counting", max_length=2, balance=1.0)
    images = dict(frames=1, image_size=48, prompt_length=12, target_length=4)
    config.data.streams.image = common.stream("train", 16, **images)
    config.evals.count = common.evaluation("counting", "test", 16, "test",
                                           options=dict(max_length=2), **images)
    config.optimizer.update(steps=30, warmup_steps=5, learning_rate=1e-3, vision_learning_rate=1e-3)
    return config
