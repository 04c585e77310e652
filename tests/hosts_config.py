"""What the tests of several processes train: the end-to-end tests' config with less to compile."""

import e2e_config

from configs import common, demo_zero_shot


def get_config():
    config = e2e_config.get_config()
    streams = config.data.streams
    streams.video.frames = 2
    del streams.text  # which `meshes_config.py` trains
    for name in ("mlm", "prefix_lm", "instruct"):
        config.task.objectives[name] = 0.0
    config.optimizer.update(dict(steps=4, warmup_steps=1))
    config.checkpoint_every, config.eval_every = 2, 4
    for name in set(config.evals) - {"video_retrieval"}:
        del config.evals[name]
    streams.video.split, held_out = "video_train[rest]", "video_train[held_out]"
    config.evals.held_out = common.evaluation(
        "pretrain", held_out, 8, held_out, options=common.named(config.task), frames=2,
        image_size=config.model.image_size, text_length=24)
    config.best, config.select_on_test = "video_held_out_loss", True
    config.evals.video_retrieval.task.rerank = 4
    for name, entry in demo_zero_shot.get_config().evals.items():
        if name.startswith("video_motion"):
            config.evals[name] = entry
            if "templates" in entry.task:
                entry.task.templates = entry.task.templates[:2]
    for entry in config.evals.values():
        entry.stream.update(dict(frames=2, batch_size=8))
    config.mesh.update(dict(data=1, fsdp=4, tensor=1))
    return config
