"""NoCaps: a COCO captioner on objects that COCO lacks: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare nocaps --raw=NOCAPS --out=prepared
    python eval.py --checkpoint=runs/coco_caption --config=configs/nocaps_caption.py:large \
        --out=runs/nocaps

Split `val`, 4,500 images, and by domain: `in_domain` 648, `near_domain` 2,938, `out_domain` 914.
No figure published at hand. The test split's captions are hidden. Training on it is that of
`configs/coco_caption.py`: NoCaps has no images to train on.
"""

from ml_collections import ConfigDict

from configs import coco_caption, recipe

DOMAINS = ("in_domain", "near_domain", "out_domain")


def get_config(size: str = "large"):
    config = coco_caption.get_config(size)
    captions = config.evals.image_caption
    config.evals = ConfigDict()
    for name in ("val", *DOMAINS):
        split = "+".join(DOMAINS) if name == "val" else name
        entry = captions.copy_and_resolve_references()
        entry.stream.update(dict(split=split, root=f"{recipe.PREPARED}/nocaps"))
        entry.validation, entry.kind = split, f"image_{name}"
        config.evals[name] = entry
    return config
