"""MSR-VTT captioning, by the release's recipe; words: a size, a preset, `scst`.

    python -m data.prepare msrvtt --raw=MSRVTT --out=prepared
    python train.py --config=configs/msrvtt_caption.py:large --workdir=runs/msrvtt_caption \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/msrvtt_caption --which=best --java

then, to raise CIDEr-D itself (SCST), in another work folder,

    python train.py --config=configs/msrvtt_caption.py:large,scst --workdir=runs/msrvtt_scst \
        --config.init_from=runs/msrvtt_caption/best

Split `test`, the official one of 2,990 clips (6,513 and 497 to train and tune on). Paper: CIDEr
80.3, BLEU-4 57.8, METEOR 34.9; of the released weights, users report that on this split, and CIDEr
69.0 on 1k-A. Released weights become a checkpoint of this config by

    python -m mplug2_jax.convert official CKPT.pth --config=configs/msrvtt_caption.py --out=DIR
"""

from configs import common, recipe

CAPTIONS = {"items": 6_513 * 20, "media": 6_513}  # of the training split
PROMPT = "a video of"
BATCH = 64  # 8 devices x 4 videos x 2 micro-batches; task.accumulation=2 needs less memory
VARIANTS = ("scst",)
SOURCES = recipe.also(recipe.VIDEO_CAPTION, recipe.SCST) | {
    "examples": "data: 6,513 clips of 20 captions"}


def get_config(options: str = "large"):
    said = recipe.words(options, stage=("", "scst"))
    config = recipe.start(said, "msrvtt")
    config.task = common.task("captioning", memory="visual", caption_prompt=PROMPT, beams=5,
                              min_length=4, max_length=20)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=20)
    config.data.streams.video = common.stream("train", BATCH, **recipe.VIDEOS, **clips)
    recipe.pace(config, CAPTIONS, BATCH, epochs=10, warmup=100)
    if said["stage"] == "scst":
        recipe.self_critical(config, CAPTIONS, BATCH)
    recipe.evaluate(config, "video_caption", "test", "val", **clips)
    return config
