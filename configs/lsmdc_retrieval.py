"""LSMDC text-video retrieval; words: a size, a preset.

    python -m data.prepare lsmdc --raw=LSMDC --out=prepared
    python train.py --config=configs/lsmdc_retrieval.py:large --workdir=runs/lsmdc_retrieval \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/lsmdc_retrieval --which=best

Split `test`, the public 1,000 clips of LSMDC 2016 (101,079 and 7,408 to train and tune on; the
first 1,000 of those during training, a gallery as large as the test's). Paper, text to video: R@1
34.4, R@5 55.2, R@10 65.1, as remembered, unconfirmed.
"""

from configs import common, recipe

SENTENCES = recipe.alike(101_079)  # of the training split, one a clip
BATCH = 128
SOURCES = recipe.VIDEO_RETRIEVAL | {
    "examples": "data: a sentence a clip",
    "epochs": "mPLUG: configs/retrieval_msrvtt_mplug_large.yaml, epochs, of MSR-VTT",
    "stream.text_length": "ours: its sentences are longer than captions; the release cuts at 256 "
                          "words",
}


def get_config(options: str = "large"):
    config = recipe.start(options, "lsmdc",
                          new=("heads/vtc", "heads/vtm"))
    config.task = common.task("retrieval", rerank=128)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=40)
    config.data.streams.video = common.stream("train", BATCH, **recipe.VIDEOS, **clips)
    recipe.pace(config, SENTENCES, BATCH, epochs=5, warmup=100)
    recipe.evaluate(config, "video_retrieval", "test", "val", limit=recipe.FEW, **clips)
    return config
