"""RefCOCO, RefCOCO+ and RefCOCOg: `:DATASET,SIZE`, by default `refcoco,large`.

    python -m data.prepare refcoco --raw=REFCOCO --out=prepared
    python train.py --config=configs/refcoco_grounding.py:refcoco,large --workdir=runs/refcoco \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/refcoco

The same for `refcoco_plus` and `refcocog`; SIZE is tiny, base or large. Splits of UNC: `val`,
`testA`, `testB`; of UMD for RefCOCOg: `val`, `test`. Paper, accuracy at IoU 0.5: RefCOCO 90.3 /
92.8 / 86.1, RefCOCOg 84.7 / 85.1; RefCOCO+: no figure published at hand. A box is four location
tokens, entries `[unused0]` ... of the vocabulary. Rates and 336 pixels: as the predecessor mPLUG
published them; batch and epochs are a guess.
"""

from configs import common, recipe

# By dataset: phrases of the training split, splits to report.
DATASETS = {
    "refcoco": (120_624, ("val", "testA", "testB")),
    "refcoco_plus": (120_191, ("val", "testA", "testB")),
    "refcocog": (80_512, ("val", "test")),
}
BATCH = 192


def get_config(options: str = "refcoco,large"):
    dataset, size = recipe.choose(options, DATASETS)
    phrases, splits = DATASETS[dataset]
    config = recipe.start(size, dataset)
    config.task = common.task("grounding")
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, ask="box",
                  prompt_length=20)
    config.data.streams.image = common.stream("train", BATCH, **recipe.AUGMENTED, **images)
    recipe.pace(config, phrases, BATCH, epochs=40, vision_rate=5e-6)
    for split in splits:
        recipe.evaluate(config, split, split, "val", batch=64, kind=f"image_{split}", **images)
    return config
