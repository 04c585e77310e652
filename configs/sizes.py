"""The model sizes, in one place."""

import ml_collections

from mplug2_jax.model.config import MODULES


def model(size: str) -> ml_collections.ConfigDict:
    """The `model` section of size `tiny`, `base` or `large` (`mplug2_jax.model.ModelConfig`).

    `base` and `large` are the released sizes. `tiny` is for tests and the demo: it trains on a
    laptop's processor.

    Raises:
      ValueError: another name.
    """
    sizes = {
        "tiny": dict(
            vision_width=128, vision_layers=4, patch_size=8, image_size=48,
            width=128, heads=4, mlp_dim=512, vocab_size=512, max_positions=64, dropout=0.0,
            text_layers=2, universal_layers=2, latents=16, fusion_layers=2, decoder_layers=2,
            contrastive_dim=128, scan=False, dtype="float32",
        ),
        "base": dict(
            vision_width=768, vision_layers=12, patch_size=16, image_size=224,
            width=768, heads=12, mlp_dim=3072, vocab_size=30522, max_positions=512, dropout=0.1,
            text_layers=10, universal_layers=2, latents=50, fusion_layers=3, decoder_layers=12,
            contrastive_dim=256, scan=True, dtype="bfloat16",
        ),
        "large": dict(
            vision_width=1024, vision_layers=24, patch_size=14, image_size=224,
            width=1024, heads=16, mlp_dim=4096, vocab_size=30522, max_positions=512, dropout=0.1,
            text_layers=22, universal_layers=2, latents=50, fusion_layers=6, decoder_layers=12,
            contrastive_dim=256, scan=True, dtype="bfloat16",
        ),
    }
    if size not in sizes:
        raise ValueError(f"size {size!r}: expected one of {', '.join(sizes)}")
    shared = dict(temporal_stride=0, local_temporal="twice", temporal_groups=4,
                  universal_variant="release", universal_sharing="shared", position_gain=1.0,
                  stochastic_depth=0.0, remat=dict.fromkeys(MODULES, "none"), shard_frames=False,
                  fusion_stride=3 if size == "base" else 1000)
    return ml_collections.ConfigDict(shared | sizes[size])
