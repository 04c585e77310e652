"""Flickr30K image-text retrieval, by the predecessor's recipe; words: a size, a preset.

    python -m data.prepare flickr30k_karpathy --raw=FLICKR30K --out=prepared
    python train.py --config=configs/flickr30k_retrieval.py:large \
        --workdir=runs/flickr30k_retrieval --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/flickr30k_retrieval --which=best

Split `test` of Karpathy, 1,000 images (29,000 and 1,014 to train and tune on). No figure published
at hand.
"""

from configs import common, recipe

CAPTIONS = {"items": 29_000 * 5, "media": 29_000}  # of the training split
BATCH = 1_024
SOURCES = recipe.IMAGE_RETRIEVAL | {"examples": "data: 29,000 images of 5 captions"}


def get_config(options: str = "large"):
    config = recipe.start(options, "flickr30k_karpathy",
                          new=("heads/vtc", "heads/vtm"))
    config.task = common.task("retrieval", rerank=256)
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, text_length=30)
    config.data.streams.image = common.stream("train", BATCH, **recipe.IMAGES, **images)
    recipe.pace(config, CAPTIONS, BATCH, epochs=8, rate=1e-5, vision_rate=2e-6, warmup=100)
    recipe.evaluate(config, "image_retrieval", "test", "val", batch=64, limit=recipe.FEW, **images)
    return config
