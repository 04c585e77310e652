"""The demo's config with everything small: what the end-to-end tests train."""

from configs import demo


def get_config(stage="joint"):
    config = demo.get_config(stage)
    config.model.update(dict(vision_width=64, vision_layers=1, width=32, heads=4, mlp_dim=64,
                             universal_layers=1, fusion_layers=1, decoder_layers=1, latents=4,
                             contrastive_dim=16))
    config.init_from, config.allow_new = "", ()
    # Each stream and each evaluation is a program more: images are clips of one frame.
    del config.data.streams.image
    for name in ("image_retrieval", "image_caption"):
        del config.evals[name]
    for stream in config.data.streams.values():
        stream.batch_size = 8
    config.optimizer.update(dict(steps=12, warmup_steps=2))
    config.log_every, config.checkpoint_every = 1, 4
    config.eval_every = 12 if stage == "joint" else 0  # a start has not what all of them need
    config.eval_limit = 8
    for entry in config.evals.values():
        entry.stream.batch_size = 16
    return config
