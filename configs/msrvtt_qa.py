"""MSR-VTT question answering, by the release's recipe: `:tiny`, `:base` or `:large` (the default).

    python train.py --config=configs/msrvtt_qa.py:large --workdir=runs/msrvtt_qa

Released weights become a checkpoint of this config by

    python -m mplug2_jax.convert official CKPT.pth --config=configs/msrvtt_qa.py --out=DIR
"""

from configs import common

DATA = "data/msrvtt_qa"
QUESTIONS = 158_581  # of the training split
BATCH = 32  # 8 devices x 4 videos


def get_config(size: str = "large"):
    config = common.base(size)
    config.model.update(dict(vocab_size=30_522, dropout=0.1))
    config.data.root, config.data.tokenizer = DATA, f"{DATA}/vocab.txt"
    config.task = common.task("qa", beams=5, min_length=1, max_length=10)
    clips = dict(frames=16, image_size=config.model.image_size, prompt_length=25, target_length=12)
    config.data.streams.video = common.stream("train", BATCH, crop_area=(0.5, 1.0), flip=True,
                                              rand_augment=(2, 5), **clips)

    steps = 10 * QUESTIONS // BATCH
    config.optimizer.update(dict(
        steps=steps, learning_rate=2e-5, vision_learning_rate=2e-6, final_learning_rate=1e-6,
        warmup_steps=steps // 100, weight_decay=0.02))
    config.evals.video_qa = common.evaluation(
        config.task.copy_and_resolve_references(), common.stream("test", 32, **clips), "validation")
    return config
