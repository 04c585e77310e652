"""NLVR2, whether a sentence is true of two images: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare nlvr2 --raw=NLVR2 --out=prepared
    python train.py --config=configs/nlvr2_classification.py:large --workdir=runs/nlvr2 \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/nlvr2

Split `test1` (test-P), 6,967 sentences (86,373 and 6,982, `dev`, to train and tune on). No figure
published at hand. Rates are those of the release; pixels, batch and epochs are a guess after ALBEF.
"""

from configs import common, recipe

SENTENCES = 86_373  # of the training split
BATCH = 128
CLASSES = ("False", "True")


def get_config(size: str = "large"):
    config = recipe.start(size, "nlvr2", new=("heads/classify",))
    config.task = common.task("classification", inputs="images", classes=CLASSES)
    pairs = dict(frames=2, image_size=config.model.image_size * 3 // 2, text_length=40)
    config.data.streams.pair = common.stream("train", BATCH, **recipe.AUGMENTED, **pairs)
    recipe.pace(config, SENTENCES, BATCH, epochs=10)
    recipe.evaluate(config, "nlvr2", "test1", "dev", batch=64, **pairs)
    return config
