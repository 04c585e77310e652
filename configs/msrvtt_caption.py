"""MSR-VTT captioning, by the release's recipe: `:tiny`, `:base` or `:large` (the default).

    python train.py --config=configs/msrvtt_caption.py:large --workdir=runs/msrvtt_caption

Released weights become a checkpoint of this config by

    python -m mplug2_jax.convert official CKPT.pth --config=configs/msrvtt_caption.py --out=DIR
"""

from configs import common

DATA = "data/msrvtt"
CAPTIONS = 6_513 * 20  # of the training split
PROMPT = "a video of"
BATCH = 64  # 8 devices x 4 videos, accumulated twice


def get_config(size: str = "large"):
    config = common.base(size)
    config.model.update(dict(vocab_size=30_522, dropout=0.1))
    config.data.root, config.data.tokenizer = DATA, f"{DATA}/vocab.txt"
    config.task = common.task("captioning", memory="visual", caption_prompt=PROMPT, beams=5,
                              min_length=4, max_length=20)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=25,
                 caption_prompt=PROMPT)
    config.data.streams.video = common.stream("train", BATCH, crop_area=(0.5, 1.0), flip=True,
                                              rand_augment=(2, 5), **clips)

    steps = 10 * CAPTIONS // BATCH
    config.optimizer.update(dict(
        steps=steps, learning_rate=2e-5, vision_learning_rate=2e-6, final_learning_rate=1e-6,
        warmup_steps=steps // 100, weight_decay=0.02))
    config.evals.video_caption = common.evaluation(
        config.task.copy_and_resolve_references(), common.stream("test", 32, **clips), "validation")
    return config
