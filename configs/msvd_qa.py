"""MSVD-QA, by the release's recipe; words: a size, a preset.

    python -m data.prepare msvd_qa --raw=MSVD-QA --out=prepared
    python train.py --config=configs/msvd_qa.py:large --workdir=runs/msvd_qa \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/msvd_qa --which=best

Split `test`, 13,157 questions (30,933 and 6,415 to train and tune on). Paper: top-1 58.1
fine-tuned, 55.3 zero-shot.
"""

from configs import common, recipe

QUESTIONS = {"items": 30_933}  # of the training split
BATCH = 32  # 8 devices x 4 videos
SOURCES = recipe.VIDEO_QA | {"examples": "data: questions of the training split"}


def get_config(options: str = "large"):
    config = recipe.start(options, "msvd_qa")
    config.task = common.task("qa", beams=5, min_length=1, max_length=10)
    clips = dict(frames=16, image_size=config.model.image_size, prompt_length=50, target_length=12)
    config.data.streams.video = common.stream("train", BATCH, **recipe.VIDEOS, **clips)
    recipe.pace(config, QUESTIONS, BATCH, epochs=10)
    recipe.evaluate(config, "video_qa", "test", "val", **clips)
    return config
