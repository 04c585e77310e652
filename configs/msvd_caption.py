"""MSVD captioning, by the release's recipe; words: a size, a preset, `scst`.

    python -m data.prepare msvd --raw=MSVD --out=prepared
    python train.py --config=configs/msvd_caption.py:large --workdir=runs/msvd_caption \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/msvd_caption --which=best --java

then, to raise CIDEr-D itself (SCST), in another work folder,

    python train.py --config=configs/msvd_caption.py:large,scst --workdir=runs/msvd_scst \
        --config.init_from=runs/msvd_caption/best

Split `test`, 670 clips (1,200 and 100 to train and tune on). Paper: CIDEr 165.8, METEOR 48.4.
"""

from configs import common, recipe

CAPTIONS = {"items": 48_774, "media": 1_200}  # of the training split, about
PROMPT = "a video of"
BATCH = 64  # 8 devices x 4 videos x 2 micro-batches; task.accumulation=2 needs less memory
VARIANTS = ("scst",)
SOURCES = recipe.also(recipe.VIDEO_CAPTION, recipe.SCST) | {
    "examples": "data: captions of the 1,200 clips, about"}


def get_config(options: str = "large"):
    said = recipe.words(options, stage=("", "scst"))
    config = recipe.start(said, "msvd")
    config.task = common.task("captioning", memory="visual", caption_prompt=PROMPT, beams=5,
                              min_length=4, max_length=20)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=20)
    config.data.streams.video = common.stream("train", BATCH, **recipe.VIDEOS, **clips)
    recipe.pace(config, CAPTIONS, BATCH, epochs=10, warmup=100)
    if said["stage"] == "scst":
        recipe.self_critical(config, CAPTIONS, BATCH)
    recipe.evaluate(config, "video_caption", "test", "val", **clips)
    return config
