"""SNLI-VE, whether a sentence follows from an image; words: a size, a preset.

    python -m data.prepare snli_ve --raw=SNLI-VE --out=prepared
    python train.py --config=configs/snli_ve_classification.py:large --workdir=runs/snli_ve \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/snli_ve --which=best

Split `test`, 17,901 hypotheses (529,527 and 17,858, `dev`, to train and tune on). No figure
published at hand.
"""

from configs import common, recipe

HYPOTHESES = {"items": 529_527}  # of the training split
BATCH = 256
CLASSES = ("contradiction", "neutral", "entailment")
SOURCES = recipe.PIXELS | {
    "optimizer.learning_rate epochs": "ALBEF: configs/VE.yaml, lr and epochs",
    "optimizer.vision_learning_rate": "release: a tenth of the rest's, as in its video tasks",
    "optimizer.warmup_steps": "ALBEF: configs/VE.yaml, warmup_epochs 1 of 100 iterations",
    "stream.batch_size": "ALBEF: configs/VE.yaml, batch_size_train 32; its README, 8 GPUs",
    "stream.text_length": "ours: longer than nearly all hypotheses",
    "examples": "data: hypotheses of the training split",
}


def get_config(options: str = "large"):
    config = recipe.start(options, "snli_ve", new=("heads/classify",))
    config.task = common.task("classification", inputs="both", classes=CLASSES,
                              expand="question")  # each hypothesis of an image
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, text_length=40)
    config.data.streams.image = common.stream("train", BATCH, **recipe.IMAGES, **images)
    recipe.pace(config, HYPOTHESES, BATCH, epochs=5, warmup=100)
    recipe.evaluate(config, "snli_ve", "test", "dev", batch=64, **images)
    return config
