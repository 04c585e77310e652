"""COCO captioning: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare coco_karpathy --raw=COCO --out=prepared
    python train.py --config=configs/coco_caption.py:large --workdir=runs/coco_caption \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/coco_caption --java

then, to raise CIDEr-D itself (SCST; its rates are mPLUG's on COCO), in another work folder,

    python train.py --config=configs/coco_caption.py:large --workdir=runs/coco_scst \
        --config.init_from=runs/coco_caption --config.task.samples=5 \
        --config.optimizer.learning_rate=1e-6 --config.optimizer.vision_learning_rate=1e-6

Split `test` of Karpathy, 5,000 images (113,287 with restval, and 5,000, to train and tune on).
Paper: CIDEr 137.7, as remembered, unconfirmed. Rates, epochs, 336 pixels: as the predecessor mPLUG
published them; the batch over all devices is a guess.
"""

from configs import common, recipe

CAPTIONS = 113_287 * 5  # of the training split
BATCH = 512


def get_config(size: str = "large"):
    config = recipe.start(size, "coco_karpathy")
    config.task = common.task("captioning", memory="visual", beams=5, min_length=4, max_length=20)
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, text_length=25)
    config.data.streams.image = common.stream("train", BATCH, **recipe.AUGMENTED, **images)
    recipe.pace(config, CAPTIONS, BATCH, epochs=5, rate=1e-5, vision_rate=5e-6)
    recipe.evaluate(config, "image_caption", "test", "val", batch=64, **images)
    return config
