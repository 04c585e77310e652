"""Something-Something v2: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare ssv2 --raw=SSV2 --out=prepared
    python train.py --config=configs/ssv2_classification.py:large --workdir=runs/ssv2 \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/ssv2

Split `val`, 24,777 clips of 174 classes, which the field reports (168,913 to train on; the labels
of `test` are hidden); do not tune on it. No figure published at hand. Clips are never mirrored:
left and right are what some classes differ by. Tested with 1 clip x 3 crops of 16 frames. All of
the recipe is a guess.
"""

from configs import common, recipe

CLIPS = 168_913  # of the training split
BATCH = 256


def get_config(size: str = "large"):
    config = recipe.start(size, "ssv2", new=("heads/classify",))
    classes = f"{config.data.root}/1.0.0/classes.txt"
    config.task = common.task("classification", inputs="visual", classes=classes,
                              label_smoothing=0.1)
    config.model.stochastic_depth = 0.1
    clips = dict(frames=16, image_size=config.model.image_size)
    augmented = recipe.AUGMENTED | dict(flip=False)
    config.data.streams.video = common.stream("train", BATCH, **augmented, **clips)
    recipe.pace(config, CLIPS, BATCH, epochs=20, rate=1e-4, vision_rate=1e-4)
    config.optimizer.layer_decay = 0.75
    recipe.evaluate(config, "ssv2", "val", "val", batch=16, views=(1, 3), **clips)
    return config
