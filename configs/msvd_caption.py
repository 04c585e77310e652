"""MSVD captioning, by the release's recipe: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare msvd --raw=MSVD --out=prepared
    python train.py --config=configs/msvd_caption.py:large --workdir=runs/msvd_caption \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/msvd_caption --java

then, to raise CIDEr-D itself (SCST; its rates are mPLUG's on COCO), in another work folder,

    python train.py --config=configs/msvd_caption.py:large --workdir=runs/msvd_scst \
        --config.init_from=runs/msvd_caption --config.task.samples=5 \
        --config.optimizer.learning_rate=1e-6 --config.optimizer.vision_learning_rate=1e-6

Split `test`, 670 clips (1,200 and 100 to train and tune on). Paper: CIDEr 165.8, METEOR 48.4.
"""

from configs import common, recipe

CAPTIONS = 48_774  # of the training split, about
PROMPT = "a video of"
BATCH = 64  # 8 devices x 4 videos, accumulated twice


def get_config(size: str = "large"):
    config = recipe.start(size, "msvd")
    config.task = common.task("captioning", memory="visual", caption_prompt=PROMPT, beams=5,
                              min_length=4, max_length=20)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=25)
    config.data.streams.video = common.stream("train", BATCH, **recipe.AUGMENTED, **clips)
    recipe.pace(config, CAPTIONS, BATCH, epochs=10)
    recipe.evaluate(config, "video_caption", "test", "val", **clips)
    return config
