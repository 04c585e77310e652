"""Kinetics-400, -600 and -700: `:DATASET,SIZE`, by default `kinetics400,large`.

    python -m data.prepare kinetics400 --raw=KINETICS --out=prepared
    python train.py --config=configs/kinetics_classification.py:kinetics400,large \
        --workdir=runs/kinetics400 --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/kinetics400

The same for `kinetics600` and `kinetics700`; SIZE is tiny, base or large. Split `val`, which the
field reports: 20,000, 30,000 and 35,000 clips as published, fewer as they are found today; do not
tune on it. Paper: top-1 87.1, 89.8, 80.4, as remembered, unconfirmed. Tested with 4 clips x 3 crops
of 16 frames spread over the video; `--config.data.streams.video.frame_stride=4` trains on dense
ones. All of the recipe is a guess.
"""

from configs import common, recipe

DATASETS = {"kinetics400": 246_245, "kinetics600": 392_622, "kinetics700": 545_317}  # clips
BATCH = 256


def get_config(options: str = "kinetics400,large"):
    dataset, size = recipe.choose(options, DATASETS)
    config = recipe.start(size, dataset, new=("heads/classify",))
    classes = f"{config.data.root}/1.0.0/classes.txt"
    config.task = common.task("classification", inputs="visual", classes=classes,
                              label_smoothing=0.1)
    config.model.stochastic_depth = 0.1
    clips = dict(frames=16, image_size=config.model.image_size)
    config.data.streams.video = common.stream("train", BATCH, **recipe.AUGMENTED, **clips)
    recipe.pace(config, DATASETS[dataset], BATCH, epochs=20, rate=1e-4, vision_rate=1e-4)
    config.optimizer.layer_decay = 0.75
    recipe.evaluate(config, dataset, "val", "val", batch=16, views=(4, 3), **clips)
    return config
