"""RefCOCO, RefCOCO+, RefCOCOg; words: a data set (`refcoco` if none is given), a size, a preset.

    python -m data.prepare refcoco --raw=REFCOCO --out=prepared
    python train.py --config=configs/refcoco_grounding.py:refcoco,large --workdir=runs/refcoco \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/refcoco --which=best

The same for `refcoco_plus`, `refcocog` and `refcoco_union`: the training phrases of all three, but
of images that any of them tunes or tests on. The predecessor mPLUG trains on a union first, and
from there on each set: `:refcoco,large` with `--config.init_from=runs/refcoco_union/best`. Its
union has ReferIt too, and was not cleared of test images.

Splits of UNC: `val`, `testA`, `testB`; of UMD for RefCOCOg: `val`, `test`; it is tuned on `val`.
Paper, accuracy at IoU 0.5: RefCOCO 90.3 / 92.8 / 86.1, RefCOCOg 84.7 / 85.1; RefCOCO+: no figure
published at hand. A box is four location tokens, entries `[unused0]` ... of the vocabulary.
"""

from configs import common, recipe

# By dataset: phrases of the training split; splits to report by the one to tune on.
UNC = {"val": ("testA", "testB", "val")}
DATASETS = {
    "refcoco": (120_624, UNC),
    "refcoco_plus": (120_191, UNC),
    "refcocog": (80_512, {"val": ("test", "val")}),
    "refcoco_union": (280_000, {  # about: images are in several sets
        "refcoco_val": ("refcoco_testA", "refcoco_testB"),
        "refcoco_plus_val": ("refcoco_plus_testA", "refcoco_plus_testB"),
        "refcocog_val": ("refcocog_test",)}),
}
BATCH = 192
SOURCES = recipe.PIXELS | {
    "optimizer.learning_rate optimizer.vision_learning_rate epochs":
        "mPLUG: configs/grounding_mplug_large.yaml, lr1, lr2 and epochs",
    "optimizer.warmup_steps": "mPLUG: grounding_mplug.py, warmup_epochs 20 of 100 iterations",
    "stream.batch_size":
        "mPLUG: the YAML's batch_size_train 24; scripts/grounding_mplug_large.sh, 8 GPUs",
    "stream.prompt_length": "mPLUG: configs/grounding_mplug_large.yaml, max_query_len",
    "stream.crop_area": "ours: crops keep the box whole; mPLUG pads and crops in another way",
    "stream.flip": "mPLUG: dataset/vg_transforms.py, which swaps left and right in the phrase; "
                   "here such phrases are not mirrored",
    "stream.rand_augment": "release: dataset/__init__.py, of images, here but for what moves the "
                           "box; mPLUG jitters colours by 0.4",
    "examples": "data: phrases of the training split; of the union our estimate",
}


def get_config(options: str = "refcoco,large"):
    said = recipe.words(options, dataset=DATASETS)
    phrases, splits = DATASETS[said["dataset"]]
    config = recipe.start(said, said["dataset"])
    config.task = common.task("grounding")
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, ask="box",
                  prompt_length=20)
    config.data.streams.image = common.stream("train", BATCH, **recipe.IMAGES, **images)
    recipe.pace(config, {"items": phrases}, BATCH, epochs=120, vision_rate=5e-6, warmup=2_000)
    for validation, reported in splits.items():
        for split in reported:
            recipe.evaluate(config, split, split, validation, batch=64, kind=f"image_{split}",
                            **images)
    return config
