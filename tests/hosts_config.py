"""What the tests of several processes train: the end-to-end tests' config with less of it."""

import e2e_config


def get_config():
    config = e2e_config.get_config()
    del config.data.streams.image
    config.data.streams.video.frames = 2
    config.optimizer.update(dict(steps=4, warmup_steps=1))
    config.checkpoint_every, config.eval_every = 2, 0
    kept = {name: config.evals[name] for name in ("video_retrieval", "video_qa")}
    config.evals = type(config.evals)(kept)
    for entry in config.evals.values():
        entry.stream.frames, entry.stream.batch_size = 2, 8
    config.evals.video_retrieval.task.rerank = 4
    config.mesh.update(dict(data=2, fsdp=2, tensor=2))
    return config
