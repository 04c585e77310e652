"""NLVR2, whether a sentence is true of two images; words: a size, a preset.

    python -m data.prepare nlvr2 --raw=NLVR2 --out=prepared
    python train.py --config=configs/nlvr2_classification.py:large --workdir=runs/nlvr2 \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/nlvr2 --which=best

Split `test1` (test-P), 6,967 sentences (86,373 and 6,982, `dev`, to train and tune on). No figure
published at hand.
"""

from configs import common, recipe

SENTENCES = recipe.alike(86_373)  # of the training split, one a record of two images
BATCH = 128
CLASSES = ("False", "True")
SOURCES = recipe.PIXELS | {
    "optimizer.learning_rate epochs": "ALBEF: configs/NLVR.yaml, lr and epochs",
    "optimizer.vision_learning_rate": "release: a tenth of the rest's, as in its video tasks",
    "optimizer.warmup_steps": "ALBEF: configs/NLVR.yaml, warmup_epochs 1 of 100 iterations",
    "stream.batch_size": "ALBEF: configs/NLVR.yaml, batch_size 16; its README, 8 GPUs",
    "stream.frames": "data: two images a sentence",
    "stream.text_length": "ours: longer than nearly all sentences",
    "examples": "data: sentences of the training split",
}


def get_config(options: str = "large"):
    config = recipe.start(options, "nlvr2", new=("heads/classify",))
    config.task = common.task("classification", inputs="images", classes=CLASSES)
    pairs = dict(frames=2, image_size=config.model.image_size * 3 // 2, text_length=40)
    config.data.streams.pair = common.stream("train", BATCH, **recipe.IMAGES, **pairs)
    recipe.pace(config, SENTENCES, BATCH, epochs=10, warmup=100)
    recipe.evaluate(config, "nlvr2", "test1", "dev", batch=64, kind="images", **pairs)
    return config
