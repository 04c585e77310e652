"""DiDeMo paragraph-video retrieval: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare didemo --raw=DIDEMO --out=prepared
    python train.py --config=configs/didemo_retrieval.py:large --workdir=runs/didemo_retrieval \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/didemo_retrieval

Split `test`, 1,004 videos, each with all its sentences as one paragraph (8,395 and 1,065 to train
and tune on). Paper, text to video: R@1 56.4, R@5 79.1, R@10 85.2; zero-shot R@1 45.7. The recipe is
the release's for other video tasks; epochs, batch and 128 reranked are a guess.
"""

from configs import common, recipe

PARAGRAPHS = 8_395  # of the training split
BATCH = 128


def get_config(size: str = "large"):
    config = recipe.start(size, "didemo", new=("heads/vtc", "heads/vtm"))
    config.task = common.task("retrieval", rerank=128)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=64)
    config.data.streams.video = common.stream("train", BATCH, **recipe.AUGMENTED, **clips)
    recipe.pace(config, PARAGRAPHS, BATCH, epochs=20)
    recipe.evaluate(config, "video_retrieval", "test", "val", **clips)
    return config
