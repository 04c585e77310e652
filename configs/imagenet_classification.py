"""ImageNet-1K: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare class_folders --raw=IMAGENET --out=prepared
    python train.py --config=configs/imagenet_classification.py:large --workdir=runs/imagenet \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/imagenet

Split `val`, 50,000 images, which the field reports; `train` has 1,281,167, and there is no split to
tune on. No figure published at hand. Any other images in a folder a class are read by the same
command; prepared by TFDS, `:large,tfds` reads `prepared/imagenet2012`. The recipe is a guess.
"""

from configs import common, recipe

IMAGES = 1_281_167  # of the training split
BATCH = 1_024


def get_config(options: str = "large"):
    size, _, tfds = options.partition(",")
    if tfds not in ("", "tfds"):
        raise ValueError(f"{options!r}: expected a size, with or without ',tfds'")
    config = recipe.start(size, "imagenet2012" if tfds else "class_folders",
                          new=("heads/classify",))
    names = "5.1.0/label.labels.txt" if tfds else "1.0.0/classes.txt"
    classes, val = f"{config.data.root}/{names}", "validation" if tfds else "val"
    config.task = common.task("classification", inputs="visual", classes=classes,
                              label_smoothing=0.1, mixup=0.8, cutmix=1.0)
    config.model.stochastic_depth = 0.1
    images = dict(frames=1, image_size=config.model.image_size)
    config.data.streams.image = common.stream("train", BATCH, crop_area=(0.2, 1.0), flip=True,
                                              rand_augment=(2, 9), **images)
    recipe.pace(config, IMAGES, BATCH, epochs=30, rate=1e-4, vision_rate=1e-4)
    config.optimizer.update(dict(layer_decay=0.75, ema_decay=0.9999))
    recipe.evaluate(config, "imagenet", val, val, batch=256, **images)
    return config
