"""The moving-digits demo: pretraining on clips, images and text, then every task from it.

    python -m data.prepare moving_digits --out=runs/demo/data
    python train.py --config=configs/demo.py:contrastive --workdir=runs/demo/contrastive
    python train.py --config=configs/demo.py --workdir=runs/demo
    python eval.py --checkpoint=runs/demo

`make demo` runs all four. A short contrastive training stands in for the CLIP and BERT weights that
pretraining starts from. One checkpoint answers questions, captions and retrieves: the question
stands in front of the prefix language modelling loss as an instruction.
"""

from configs import common

RUN = "runs/demo"
DATA = f"{RUN}/data"


def get_config(stage: str = "joint"):
    if stage not in ("contrastive", "joint"):
        raise ValueError(f"stage {stage!r}: expected contrastive or joint")
    config = common.base("tiny")
    config.model.update(dict(vocab_size=320, patch_size=16, vision_layers=2, text_layers=1,
                             fusion_layers=2, decoder_layers=2))
    config.data.root, config.data.tokenizer = DATA, f"{DATA}/vocab.model"
    size = dict(image_size=config.model.image_size)
    pairs = dict(prompt_length=14, target_length=4, **size)
    streams = config.data.streams
    streams.video = common.stream("video_train", 16, frames=4, text_length=24, **pairs)
    streams.image = common.stream("image_train", 16, frames=1, text_length=16, **pairs)
    streams.text = common.stream("text_train", 8, text_length=24)

    # A second moment over the last 50 gradients suits a run of a thousand steps.
    config.optimizer.update(dict(steps=800, learning_rate=1e-3, vision_learning_rate=1e-3,
                                 warmup_steps=50, b2=0.98))
    config.log_every, config.checkpoint_every, config.keep_checkpoints = 20, 100, 2
    config.eval_every, config.eval_limit = 400, 64
    if stage == "contrastive":
        for name in ("vtm", "mlm", "prefix_lm", "instruct"):
            config.task.objectives[name] = 0.0
        streams.video.batch_size = streams.image.batch_size = 32
        del streams.text
        config.optimizer.steps, config.eval_every = 300, 0
    else:
        # A high rate would undo what the vision encoder has learned while the decoder is noise.
        config.optimizer.vision_learning_rate = 3e-4
        config.init_from = f"{RUN}/contrastive"
        config.task.objectives.instruct = 2.0  # answers are a few tokens, captions twenty
        config.allow_new = ("fusion", "decoder", "heads/vtm", "heads/mlm")

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
