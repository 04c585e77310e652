"""TGIF-QA, its FrameQA part, by the release's recipe: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare tgif_frameqa --raw=TGIF-QA --out=prepared
    python train.py --config=configs/tgif_qa.py:large --workdir=runs/tgif_qa \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/tgif_qa

Split `test`, 13,691 questions; `train` has 39,392, and there is no split to tune on. Paper: top-1
75.4. Accuracies by question type go by the numbers in the files (0 object, 1 number, 2 colour,
3 location).
"""

from configs import common, recipe

QUESTIONS = 39_392  # of the training split
BATCH = 32  # 8 devices x 4 videos


def get_config(size: str = "large"):
    config = recipe.start(size, "tgif_frameqa")
    config.task = common.task("qa", beams=5, min_length=1, max_length=10)
    clips = dict(frames=16, image_size=config.model.image_size, prompt_length=25, target_length=12)
    config.data.streams.video = common.stream("train", BATCH, **recipe.AUGMENTED, **clips)
    recipe.pace(config, QUESTIONS, BATCH, epochs=10)
    recipe.evaluate(config, "video_qa", "test", "test", **clips)
    return config
