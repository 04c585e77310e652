"""Captions of COCO's own splits for its evaluation server; words: a size, a preset.

    python -m data.prepare coco2014 --raw=COCO --out=prepared
    python eval.py --checkpoint=runs/coco_caption --which=best \
        --config=configs/coco_server.py:large --out=runs/coco_server
    python -m mplug2_jax.metrics.submissions runs/coco_server/results.zip \
        runs/coco_server/captions_val2014_mplug2_results.json \
        runs/coco_server/captions_test2014_mplug2_results.json

The server takes `val2014`, 40,504 images, and `test2014`, 40,775, together. The captions of
`test2014` are hidden; most of `val2014` is training data of Karpathy's split, so that its figures
say nothing. Training is that of `configs/coco_caption.py`.
"""

from ml_collections import ConfigDict

from configs import coco_caption, nocaps_caption, recipe

SPLITS = ("val2014", "test2014")
SOURCES = nocaps_caption.SOURCES  # it is captioned alike


def get_config(options: str = "large"):
    recipe.words(options)  # there is no `scst` of it
    config = coco_caption.get_config(options)
    captions = config.evals.image_caption
    config.evals, config.best, config.eval_every = ConfigDict(), "", 0
    for split in SPLITS:
        entry = captions.copy_and_resolve_references()
        entry.stream.update(dict(split=split, root=f"{recipe.PREPARED}/coco2014"))
        entry.validation, entry.kind = "", f"image_{split}"
        entry.submission = f"captions_{split}_mplug2_results.json"
        config.evals[split] = entry
    return config
