"""The demo's labelled tasks with everything small: what their end-to-end test trains."""

from configs import demo_tasks


def get_config(family):
    config = demo_tasks.get_config(f"{family},scratch")
    config.model.update(dict(vision_width=64, vision_layers=1, width=32, heads=4, mlp_dim=64,
                             universal_layers=1, fusion_layers=1, latents=4))
    config.data.streams.train.batch_size = 8
    config.optimizer.update(dict(steps=2, warmup_steps=1))
    config.log_every, config.checkpoint_every, config.eval_every = 1, 2, 2
    config.evals[family].stream.batch_size = 8
    if family == "image_pair":
        config.optimizer.frozen = ("^vision/",)
    return config
