"""Few images, a folder a class; words: a data set (or `flowers102`), a size, a preset, `tfds`.

    python -m data.prepare flowers102 --raw=FLOWERS --out=prepared
    python train.py --config=configs/class_folder.py:flowers102,large --workdir=runs/flowers102 \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/flowers102 --which=best

Oxford Flowers 102: split `test`, 6,149 images of 102 classes (1,020 and 1,020 to train and tune
on). Prepared by TFDS, `:flowers102,large,tfds` reads `prepared/oxford_flowers102`.

The same for `class_folders`, images of your own in `train/CLASS/` and `val/CLASS/`: split `val`; a
twentieth of `train` is held out to tune on. It is trained for 2,000 steps and validated every 100,
for how many images there are is not known here. The recipe is ours.
"""

from configs import common, recipe

# By dataset: images of an epoch; splits to train on, to tune on, to report.
DATASETS = {
    "flowers102": (1_020, ("train", "val", "test")),
    "class_folders": (6_400, ("train[rest]", "train[held_out]", "val")),
}
BATCH = 64
VARIANTS = ("flowers102,tfds",)
TFDS = "oxford_flowers102"
SOURCES = {
    "optimizer.learning_rate optimizer.vision_learning_rate":
        "ours: one rate for all, for every layer has its own share of it (layer_decay)",
    "optimizer.warmup_steps": "ours: a few epochs",
    "optimizer.layer_decay": "MAE: layer_decay 0.75",
    "task.label_smoothing": "MAE: main_finetune.py, smoothing 0.1",
    "epochs": "ours: about as many images seen as 1,000 to 2,000 steps have",
    "stream.batch_size": "ours: 16 steps an epoch of Flowers102",
    "stream.image_size": "ours: as pretrained",
    "stream.frames": "data: an image is a clip of one frame",
    "stream.crop_area stream.flip stream.rand_augment":
        "release: dataset/__init__.py, train_transform of images",
    "examples": "data: Flowers102; ours: of other folders what 100 steps see",
}


def get_config(options: str = "flowers102,large"):
    said = recipe.words(options, dataset=DATASETS, prepared=("", "tfds"))
    dataset, tfds = said["dataset"], said["prepared"] == "tfds"
    images, (train, val, test) = DATASETS[dataset]
    if tfds and dataset != "flowers102":
        raise ValueError(f"{options!r}: TFDS prepares flowers102, not {dataset}")
    config = recipe.start(said, TFDS if tfds else dataset, new=("heads/classify",))
    names = "2.1.1/label.labels.txt" if tfds else "1.0.0/classes.txt"
    config.task = common.task("classification", inputs="visual",
                              classes=f"{config.data.root}/{names}", label_smoothing=0.1)
    seen = dict(frames=1, image_size=config.model.image_size)
    config.data.streams.image = common.stream(train, BATCH, **recipe.IMAGES, **seen)
    recipe.pace(config, recipe.alike(images), BATCH, epochs=100 if dataset == "flowers102" else 20,
                rate=1e-4, vision_rate=1e-4, warmup=50)
    config.optimizer.layer_decay = 0.75
    recipe.evaluate(config, dataset, test, "validation" if tfds else val, batch=256, **seen)
    return config
