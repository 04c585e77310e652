"""TGIF-QA, its FrameQA part, by the release's recipe; words: a size, a preset.

    python -m data.prepare tgif_frameqa --raw=TGIF-QA --out=prepared
    python train.py --config=configs/tgif_qa.py:large --workdir=runs/tgif_qa \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/tgif_qa --which=best

Split `test`, 13,691 questions; `train` has 39,392, of which those of a twentieth of the GIFs are
held out to tune on. Paper: top-1 75.4. Accuracies by question type go by the numbers in the files
(0 object, 1 number, 2 colour, 3 location).
"""

from configs import common, recipe

QUESTIONS = {"items": recipe.rest(39_392)}  # about: parts are of GIFs
BATCH = 32  # 8 devices x 4 videos
SOURCES = recipe.VIDEO_QA | {
    "examples": "data: questions of the training split, less the twentieth that is held out"}


def get_config(options: str = "large"):
    config = recipe.start(options, "tgif_frameqa")
    config.task = common.task("qa", beams=5, min_length=1, max_length=10)
    clips = dict(frames=16, image_size=config.model.image_size, prompt_length=50, target_length=12)
    config.data.streams.video = common.stream("train[rest]", BATCH, **recipe.VIDEOS, **clips)
    recipe.pace(config, QUESTIONS, BATCH, epochs=10)
    recipe.evaluate(config, "video_qa", "test", "train[held_out]", **clips)
    return config
