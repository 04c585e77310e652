"""The model sizes and the presets of their variants, in one place."""

import ml_collections

from mplug2_jax.model.config import MODULES

# Without it four clips of 16 frames take 56 GiB of a device in training of `large`, with it 4 GiB.
# Where memory suffices for less remat, `python -m mplug2_jax.planning suggest` finds it.
FULL = dict.fromkeys(MODULES, "full")
SIZES = {
    "large": dict(
        vision_width=1024, vision_layers=24, patch_size=14, image_size=224,
        width=1024, heads=16, mlp_dim=4096, vocab_size=30522, max_positions=512, dropout=0.1,
        text_layers=22, universal_layers=2, latents=50, fusion_layers=6, decoder_layers=12,
        fusion_stride=1000, contrastive_dim=256, scan=True, dtype="bfloat16",
        remat=FULL,
    ),
    "base": dict(
        vision_width=768, vision_layers=12, patch_size=16, image_size=224,
        width=768, heads=12, mlp_dim=3072, vocab_size=30522, max_positions=512, dropout=0.1,
        text_layers=10, universal_layers=2, latents=50, fusion_layers=3, decoder_layers=12,
        fusion_stride=3, contrastive_dim=256, scan=True, dtype="bfloat16", remat=FULL,
    ),
    "tiny": dict(
        vision_width=128, vision_layers=4, patch_size=8, image_size=48,
        width=128, heads=4, mlp_dim=512, vocab_size=512, max_positions=64, dropout=0.0,
        text_layers=2, universal_layers=2, latents=16, fusion_layers=2, decoder_layers=2,
        fusion_stride=1000, contrastive_dim=128, scan=False, dtype="float32",
    ),
}
# Each of these keys, and where its value is from: the released code, or the paper's Figure 2.
PRESETS = {
    "release": dict(local_temporal="twice", temporal_groups=4, universal_variant="release",
                    universal_sharing="shared"),
    # How many groups the paper has is not said.
    "paper": dict(local_temporal="grouped", temporal_groups=4, universal_variant="figure",
                  universal_sharing="shared"),
}


def model(size: str, preset: str = "release") -> ml_collections.ConfigDict:
    """The `model` section of size `tiny`, `base` or `large` (`mplug2_jax.model.ModelConfig`).

    `base` and `large` are the released sizes. `tiny` is for tests and the demo: it trains on a
    laptop's processor. Released weights load into preset `release` alone; `paper` is Figure 2.

    Raises:
      ValueError: another name.
    """
    for kind, name, known in (("size", size, SIZES), ("preset", preset, PRESETS)):
        if name not in known:
            raise ValueError(f"{kind} {name!r}: expected one of {', '.join(known)}")
    shared = dict(temporal_stride=0, position_gain=1.0, stochastic_depth=0.0,
                  remat=dict.fromkeys(MODULES, "none"), shard_frames=False)
    return ml_collections.ConfigDict(shared | PRESETS[preset] | SIZES[size])
