"""DiDeMo paragraph-video retrieval; words: a size, a preset.

    python -m data.prepare didemo --raw=DIDEMO --out=prepared
    python train.py --config=configs/didemo_retrieval.py:large --workdir=runs/didemo_retrieval \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/didemo_retrieval --which=best

Split `test`, 1,004 videos, each with all its sentences as one paragraph (8,395 and 1,065 to train
and tune on). Paper, text to video: R@1 56.4, R@5 79.1, R@10 85.2; zero-shot R@1 45.7.
"""

from configs import common, recipe

PARAGRAPHS = recipe.alike(8_395)  # of the training split, one a video
BATCH = 128
TOKENS = 256
SOURCES = recipe.VIDEO_RETRIEVAL | {
    "examples": "data: a paragraph a video",
    "epochs": "ours: more than of MSR-VTT, for there is one paragraph a video, not 20 captions",
    "stream.text_length": "release: dataset/video_downstream_datasets.py, max_words 256, here of "
                          "ids: no paragraph is near it",
    "model.max_positions": "ours: tiny has fewer than the text needs",
}


def get_config(options: str = "large"):
    config = recipe.start(options, "didemo",
                          new=("heads/vtc", "heads/vtm"))
    config.model.max_positions = max(config.model.max_positions, TOKENS)  # of tiny
    config.task = common.task("retrieval", rerank=128)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=TOKENS)
    config.data.streams.video = common.stream("train", BATCH, **recipe.VIDEOS, **clips)
    recipe.pace(config, PARAGRAPHS, BATCH, epochs=20, warmup=100)
    recipe.evaluate(config, "video_retrieval", "test", "val", limit=recipe.FEW, **clips)
    return config
