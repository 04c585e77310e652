"""COCO captioning, by the predecessor's recipe; words: a size, a preset, `scst`.

    python -m data.prepare coco_karpathy --raw=COCO --out=prepared
    python train.py --config=configs/coco_caption.py:large --workdir=runs/coco_caption \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/coco_caption --which=best --java

then, to raise CIDEr-D itself (SCST), in another work folder,

    python train.py --config=configs/coco_caption.py:large,scst --workdir=runs/coco_scst \
        --config.init_from=runs/coco_caption/best

Split `test` of Karpathy, 5,000 images (113,287 with restval, and 5,000, to train and tune on).
Paper: CIDEr 137.7, as remembered, unconfirmed.
"""

from configs import common, recipe

CAPTIONS = {"items": 113_287 * 5, "media": 113_287}  # of the training split
BATCH, SCST_BATCH = 1_024, 256
VARIANTS = ("scst",)
SOURCES = recipe.also(recipe.PIXELS | {
    "epochs": "mPLUG: configs/caption_mplug_large.yaml, epochs",
    "optimizer.learning_rate optimizer.vision_learning_rate":
        "mPLUG: configs/caption_mplug_large.yaml, lr1 and lr2",
    "optimizer.warmup_steps":
        "mPLUG: caption_mplug.py, warmup_epochs 4 of 100 iterations, four of them an update; there "
        "from 1e-5, so that it changes lr2 alone",
    "stream.batch_size": "mPLUG: the YAML's batch_size_train 64; scripts/caption_mplug_large.sh, 4 "
                         "GPUs; caption_mplug.py, accum_steps 4, which its SCST does not have",
    "task.min_length task.max_length stream.text_length":
        "mPLUG: scripts/caption_mplug_large.sh, min_length, max_length and max_input_length",
    "task.beams": "mPLUG: caption_mplug.py, beam_size",
    "examples": "data: 113,287 images of 5 captions",
}, recipe.SCST)


def get_config(options: str = "large"):
    said = recipe.words(options, stage=("", "scst"))
    config = recipe.start(said, "coco_karpathy")
    config.task = common.task("captioning", memory="visual", beams=5, min_length=8, max_length=25)
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, text_length=25)
    config.data.streams.image = common.stream("train", BATCH, **recipe.IMAGES, **images)
    recipe.pace(config, CAPTIONS, BATCH, epochs=5, rate=1e-5, vision_rate=5e-6, warmup=100)
    if said["stage"] == "scst":
        config.data.streams.image.batch_size = SCST_BATCH
        recipe.self_critical(config, CAPTIONS, SCST_BATCH)
    recipe.evaluate(config, "image_caption", "test", "val", batch=64, **images)
    return config
