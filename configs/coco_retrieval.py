"""COCO image-text retrieval: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare coco_karpathy --raw=COCO --out=prepared
    python train.py --config=configs/coco_retrieval.py:large --workdir=runs/coco_retrieval \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/coco_retrieval

Split `test` of Karpathy, 5,000 images (113,287 with restval, and 5,000, to train and tune on).
No figure published at hand. Rates, epochs, 336 pixels and 256 reranked: as the predecessor mPLUG
published them; the batch over all devices is a guess.
"""

from configs import common, recipe

CAPTIONS = 113_287 * 5  # of the training split
BATCH = 512


def get_config(size: str = "large"):
    config = recipe.start(size, "coco_karpathy", new=("heads/vtc", "heads/vtm"))
    config.task = common.task("retrieval", rerank=256)
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, text_length=25)
    config.data.streams.image = common.stream("train", BATCH, **recipe.AUGMENTED, **images)
    recipe.pace(config, CAPTIONS, BATCH, epochs=8, rate=1e-5, vision_rate=2e-6)
    recipe.evaluate(config, "image_retrieval", "test", "val", batch=64, **images)
    return config
