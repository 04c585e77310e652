"""MSR-VTT captioning, by the release's recipe: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare msrvtt --raw=MSRVTT --out=prepared
    python train.py --config=configs/msrvtt_caption.py:large --workdir=runs/msrvtt_caption \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/msrvtt_caption --java

then, to raise CIDEr-D itself (SCST; its rates are mPLUG's on COCO), in another work folder,

    python train.py --config=configs/msrvtt_caption.py:large --workdir=runs/msrvtt_scst \
        --config.init_from=runs/msrvtt_caption --config.task.samples=5 \
        --config.optimizer.learning_rate=1e-6 --config.optimizer.vision_learning_rate=1e-6

Split `test`, the official one of 2,990 clips (6,513 and 497 to train and tune on). Paper: CIDEr
80.3, BLEU-4 57.8, METEOR 34.9; of the released weights, users report that on this split, and CIDEr
69.0 on 1k-A. Released weights become a checkpoint of this config by

    python -m mplug2_jax.convert official CKPT.pth --config=configs/msrvtt_caption.py --out=DIR
"""

from configs import common, recipe

CAPTIONS = 6_513 * 20  # of the training split
PROMPT = "a video of"
BATCH = 64  # 8 devices x 4 videos, accumulated twice


def get_config(size: str = "large"):
    config = recipe.start(size, "msrvtt")
    config.task = common.task("captioning", memory="visual", caption_prompt=PROMPT, beams=5,
                              min_length=4, max_length=20)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=25)
    config.data.streams.video = common.stream("train", BATCH, **recipe.AUGMENTED, **clips)
    recipe.pace(config, CAPTIONS, BATCH, epochs=10)
    recipe.evaluate(config, "video_caption", "test", "val", **clips)
    return config
