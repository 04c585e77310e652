"""Flickr30K image-text retrieval: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare flickr30k_karpathy --raw=FLICKR30K --out=prepared
    python train.py --config=configs/flickr30k_retrieval.py:large \
        --workdir=runs/flickr30k_retrieval --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/flickr30k_retrieval

Split `test` of Karpathy, 1,000 images (29,000 and 1,014 to train and tune on).
No figure published at hand. Rates, epochs, 336 pixels and 256 reranked: as the predecessor mPLUG
published them; the batch over all devices is a guess.
"""

from configs import common, recipe

CAPTIONS = 29_000 * 5  # of the training split
BATCH = 512


def get_config(size: str = "large"):
    config = recipe.start(size, "flickr30k_karpathy", new=("heads/vtc", "heads/vtm"))
    config.task = common.task("retrieval", rerank=256)
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, text_length=25)
    config.data.streams.image = common.stream("train", BATCH, **recipe.AUGMENTED, **images)
    recipe.pace(config, CAPTIONS, BATCH, epochs=8, rate=1e-5, vision_rate=2e-6)
    recipe.evaluate(config, "image_retrieval", "test", "val", batch=64, **images)
    return config
