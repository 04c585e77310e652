"""ImageNet-1K; words: a size, a preset, `tfds`.

    python -m data.prepare class_folders --raw=IMAGENET --out=prepared
    python train.py --config=configs/imagenet_classification.py:large --workdir=runs/imagenet \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/imagenet --which=best

Split `val`, 50,000 images, which the field reports; 5,000 of the 1,281,167 of `train` are held out
to tune on. No figure published at hand. Prepared by TFDS, `:large,tfds` reads
`prepared/imagenet2012`. Few images in a folder a class: `configs/class_folder.py`.
"""

from configs import common, recipe

IMAGES = recipe.alike(recipe.rest(1_281_167))
BATCH = 1_024
VARIANTS = ("tfds",)
SOURCES = {
    "optimizer.learning_rate optimizer.vision_learning_rate":
        "ours: one rate for all, for every layer has its own share of it (layer_decay)",
    "optimizer.warmup_steps": "ours: a hundredth of the run",
    "optimizer.layer_decay": "MAE: layer_decay 0.75",
    "optimizer.ema_decay": "ours: an average over the last epochs",
    "model.stochastic_depth": "ours: MAE has 0.1 (ViT-Base) and 0.2, at a higher rate",
    "task.label_smoothing task.mixup task.cutmix":
        "MAE: main_finetune.py, smoothing 0.1; FINETUNE.md, mixup 0.8, cutmix 1.0",
    "epochs": "ours: MAE has 50, from pretraining without texts",
    "stream.batch_size": "MAE: 32 a GPU, 32 GPUs",
    "stream.image_size": "MAE: 224, as pretrained",
    "stream.frames": "data: an image is a clip of one frame",
    "stream.crop_area": "release: dataset/__init__.py, of pretraining on images",
    "stream.flip stream.rand_augment":
        "MAE: main_finetune.py, rand-m9-mstd0.5-inc1, two operations",
    "examples": "data: images of the training split, less 5,000 held out",
}


def get_config(options: str = "large"):
    said = recipe.words(options, prepared=("", "tfds"))
    tfds = said["prepared"] == "tfds"
    config = recipe.start(said, "imagenet2012" if tfds else "class_folders",
                          new=("heads/classify",))
    names = "5.1.0/label.labels.txt" if tfds else "1.0.0/classes.txt"
    config.task = common.task("classification", inputs="visual",
                              classes=f"{config.data.root}/{names}",
                              label_smoothing=0.1, mixup=0.8, cutmix=1.0)
    config.model.stochastic_depth = 0.1
    images = dict(frames=1, image_size=config.model.image_size)
    config.data.streams.image = common.stream("train[rest]", BATCH, crop_area=(0.2, 1.0), flip=True,
                                              rand_augment=(2, 9), **images)
    recipe.pace(config, IMAGES, BATCH, epochs=30, rate=1e-4, vision_rate=1e-4, warmup=374)
    config.optimizer.update(dict(layer_decay=0.75, ema_decay=0.9999))
    recipe.evaluate(config, "imagenet", "validation" if tfds else "val", "train[held_out]",
                    batch=256, **images)
    return config
