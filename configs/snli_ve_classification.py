"""SNLI-VE, whether a sentence follows from an image: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare snli_ve --raw=SNLI-VE --out=prepared
    python train.py --config=configs/snli_ve_classification.py:large --workdir=runs/snli_ve \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/snli_ve

Split `test`, 17,901 hypotheses (529,527 and 17,858, `dev`, to train and tune on). No figure
published at hand. Rates are those of the release; pixels, batch and epochs are a guess after ALBEF.
"""

from configs import common, recipe

HYPOTHESES = 529_527  # of the training split
BATCH = 256
CLASSES = ("contradiction", "neutral", "entailment")


def get_config(size: str = "large"):
    config = recipe.start(size, "snli_ve", new=("heads/classify",))
    config.task = common.task("classification", inputs="both", classes=CLASSES,
                              expand="question")  # each hypothesis of an image
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, text_length=40)
    config.data.streams.image = common.stream("train", BATCH, **recipe.AUGMENTED, **images)
    recipe.pace(config, HYPOTHESES, BATCH, epochs=5)
    recipe.evaluate(config, "snli_ve", "test", "dev", batch=64, **images)
    return config
