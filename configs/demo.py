"""The moving-digits demo: pretraining on clips, images and text, then every task from it.

    python -m data.prepare moving_digits --out=runs/demo/data
    python train.py --config=configs/demo.py:start --workdir=runs/demo/start
    python train.py --config=configs/demo.py --workdir=runs/demo
    python eval.py --checkpoint=runs/demo

`make demo` runs all four. A first training, on pairs and questions alone, stands in for the CLIP
and BERT weights that pretraining starts from: its step is cheap, so that it sees many clips. One
checkpoint answers questions, captions and retrieves: the question stands in front of the prefix
language modelling loss as an instruction.

With `:start,uninstructed` and `:joint,uninstructed` there are no instructions: of the same batches
the questions are not asked, and the decoder learns from captions alone, from the start on.
`benchmarks/instructions.py` compares both.
"""

from configs import common

RUN = "runs/demo"
DATA = f"{RUN}/data"


STAGES = tuple(f"{stage}{arm}" for arm in ("", ",uninstructed") for stage in ("start", "joint"))


def get_config(stage: str = "joint"):
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: expected one of {' '.join(STAGES)}")
    stage, _, arm = stage.partition(",")
    config = common.base("tiny")
    config.task = common.task("pretrain")
    config.model.update(dict(vocab_size=352, patch_size=16, vision_layers=2, text_layers=1,
                             universal_layers=1, fusion_layers=2, decoder_layers=2,
                             temporal_stride=2))
    config.data.root, config.data.tokenizer = DATA, f"{DATA}/vocab.model"
    size = dict(image_size=config.model.image_size)
    streams = config.data.streams
    # No longer than the corpus' questions and answers are: padding costs as much as words do.
    asked = dict(target_length=3, **size)
    streams.video = common.stream("video_train", 20, frames=4, text_length=24, prompt_length=12,
                                  questions=2, **asked)
    streams.image = common.stream("image_train", 16, frames=1, text_length=16, prompt_length=9,
                                  **asked)
    streams.text = common.stream("text_train", 8, text_length=24)

    config.optimizer.update(dict(steps=440, learning_rate=5e-4, vision_learning_rate=5e-4,
                                 warmup_steps=20))
    # Answers are a few tokens, captions twenty, which the first training did not learn.
    config.task.objectives.update(dict(instruct=3.0, prefix_lm=2.0))
    config.log_every, config.checkpoint_every, config.keep_checkpoints = 20, 100, 2
    config.eval_limit = 64  # of a validation, for which `eval_every` asks: half a minute each
    if stage == "start":
        for name in ("vtm", "mlm", "prefix_lm"):
            config.task.objectives[name] = 0.0
        # Digits are told apart once some 25,000 clips and images were seen, in however many steps;
        # and how colours and motions go with them is asked for twice of each.
        streams.video.batch_size, streams.image.batch_size = 48, 32
        streams.image.questions = 2
        del streams.text
        # The rate stays up, for the second training goes on from there.
        config.optimizer.update(dict(steps=760, final_learning_rate=3e-4, warmup_steps=100))
    else:
        config.init_from = f"{RUN}/start"
        config.allow_new = ("heads/vtm", "heads/mlm")

    if arm:
        config.task.objectives.update(dict(prefix_lm=1.0, instruct=0.0))

    tasks = {"retrieval": ("retrieval", dict(rerank=8), dict(text_length=24)),
             "qa": ("qa", dict(max_length=3), dict(prompt_length=14, target_length=4)),
             "caption": ("captioning", dict(max_length=23), dict(text_length=24))}
    for kind, frames in (("video", 4), ("image", 1)):
        for name, (task, options, lengths) in tasks.items():
            config.evals[f"{kind}_{name}"] = common.evaluation(
                task, f"{kind}_test", 64, f"{kind}_validation", options=options, frames=frames,
                **size, **lengths)
    config.evals.image_retrieval.task.same = "group"  # many of the images show the same scene
    return config
