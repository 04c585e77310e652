"""NoCaps: a COCO captioner on objects that COCO lacks; words: a size, a preset.

    python -m data.prepare nocaps --raw=NOCAPS --out=prepared
    python eval.py --checkpoint=runs/coco_caption --which=best \
        --config=configs/nocaps_caption.py:large --out=runs/nocaps

EvalAI's server takes what eval.py writes: `nocaps_test.json` of `test`, 10,600 images whose
captions are hidden, and `val_submission.json`. Without the test images: `--only=val`.
Split `val`, 4,500 images, and by domain: `in_domain` 648, `near_domain` 2,938, `out_domain` 914.
No figure published at hand. Training, and the choice of the best checkpoint, are those of
`configs/coco_caption.py`: NoCaps has no images to train on.
"""

from ml_collections import ConfigDict

from configs import coco_caption, recipe

DOMAINS = ("in_domain", "near_domain", "out_domain")
SOURCES = {key: source for key, source in coco_caption.SOURCES.items()
           if key not in ("epochs", "examples", "task.samples")}  # those of training


def get_config(options: str = "large"):
    recipe.words(options)  # there is no `scst` of it
    config = coco_caption.get_config(options)
    captions = config.evals.image_caption
    config.evals, config.best, config.eval_every = ConfigDict(), "", 0
    for name in ("val", *DOMAINS):
        split = "+".join(DOMAINS) if name == "val" else name
        entry = captions.copy_and_resolve_references()
        entry.stream.update(dict(split=split, root=f"{recipe.PREPARED}/nocaps"))
        entry.validation, entry.kind = split, f"image_{name}"
        config.evals[name] = entry
    recipe.submit(config, "test", "val", "test", "image_test", "nocaps_test.json")
    return config
