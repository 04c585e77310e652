"""The moving-digits demo: pretraining on clips, images and text, then every task from it.

    python -m data.prepare moving_digits --out=runs/demo/data
    python train.py --config=configs/demo.py --workdir=runs/demo
    python eval.py --checkpoint=runs/demo --out=runs/demo

`make demo` runs all three. One checkpoint answers questions, captions and retrieves: the
question stands in front of the prefix language modelling loss as an instruction.
"""

from configs import common

DATA = "runs/demo/data"


def get_config():
    config = common.base("tiny")
    config.model.update(dict(vocab_size=320, patch_size=12, vision_layers=3, text_layers=1,
                             fusion_layers=2, decoder_layers=2))
    config.data.root, config.data.tokenizer = DATA, f"{DATA}/vocab.model"
    size = dict(image_size=config.model.image_size)
    pairs = dict(prompt_length=14, target_length=4, crop_area=(0.8, 1.0), **size)
    streams = config.data.streams
    streams.video = common.stream("video_train", 32, frames=4, text_length=24, **pairs)
    streams.image = common.stream("image_train", 32, frames=1, text_length=16, **pairs)
    streams.text = common.stream("text_train", 16, text_length=24)

    config.optimizer.update(dict(steps=1000, learning_rate=1e-3, vision_learning_rate=1e-3,
                                 warmup_steps=100))
    config.log_every, config.checkpoint_every, config.keep_checkpoints = 20, 100, 2
    config.eval_every, config.eval_limit = 500, 64

    def evaluate(task, split, frames, **lengths):
        examples = common.stream(split, 64, frames=frames, **size, **lengths)
        return common.evaluation(task, examples, split.replace("test", "validation"))

    for kind, frames in (("video", 4), ("image", 1)):
        split = f"{kind}_test"
        config.evals[f"{kind}_retrieval"] = evaluate(
            common.task("retrieval"), split, frames, text_length=24)
        config.evals[f"{kind}_qa"] = evaluate(
            common.task("qa", max_length=3), split, frames, prompt_length=14, target_length=4)
        config.evals[f"{kind}_caption"] = evaluate(
            common.task("captioning", max_length=23), split, frames, text_length=24)
    return config
