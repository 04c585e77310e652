"""MSRVTT-QA, by the release's recipe; words: a size, a preset.

    python -m data.prepare msrvtt_qa --raw=MSRVTT-QA --out=prepared
    python train.py --config=configs/msrvtt_qa.py:large --workdir=runs/msrvtt_qa \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/msrvtt_qa --which=best

Split `test`, 72,821 questions (158,581 and 12,278 to train and tune on). Paper: top-1 48.0
fine-tuned, 43.8 zero-shot. Released weights become a checkpoint of this config by

    python -m mplug2_jax.convert official CKPT.pth --config=configs/msrvtt_qa.py --out=DIR
"""

from configs import common, recipe

QUESTIONS = {"items": 158_581}  # of the training split
BATCH = 32  # 8 devices x 4 videos
SOURCES = recipe.VIDEO_QA | {"examples": "data: questions of the training split"}


def get_config(options: str = "large"):
    config = recipe.start(options, "msrvtt_qa")
    config.task = common.task("qa", beams=5, min_length=1, max_length=10)
    clips = dict(frames=16, image_size=config.model.image_size, prompt_length=50, target_length=12)
    config.data.streams.video = common.stream("train", BATCH, **recipe.VIDEOS, **clips)
    recipe.pace(config, QUESTIONS, BATCH, epochs=10)
    recipe.evaluate(config, "video_qa", "test", "val", **clips)
    return config
