"""Pretraining on images and videos together against each alone: an arm of `benchmarks/joint.py`.

    python -m data.prepare moving_digits --out=runs/demo/data
    python -m data.prepare moving_digits_tasks --out=runs/demo/tasks
    python train.py --config=configs/demo_joint.py:image --config.seed=1 \
        --workdir=runs/joint/image_1
    python eval.py --checkpoint=runs/joint/image_1

The arms are joint, joint_half, image and video. It is the demo's first training (`configs/demo.py`,
contrastive and instruct objectives, from scratch), shorter. All arms have the same modules, steps
and rates; a step of `joint` sees the image batch of `image` and the video batch of `video`, a step
of `joint_half` the half of both, so that it sees as many examples as one that trains alone. The
same seed gives all arms the same first parameters. Every arm is evaluated on both modalities: one
that it did not see is transfer.
"""

from ml_collections import ConfigDict

from configs import demo, demo_tasks, demo_zero_shot

BATCH = 32  # of a stream that has all of it
# By arm: what its streams have of that.
ARMS = {"joint": {"image": 1.0, "video": 1.0}, "image": {"image": 1.0}, "video": {"video": 1.0},
        "joint_half": {"image": 0.5, "video": 0.5}}


def get_config(arm: str = "joint"):
    if arm not in ARMS:
        raise ValueError(f"arm {arm!r}: expected one of {', '.join(ARMS)}")
    config = demo.get_config("start")
    streams = config.data.streams
    for name in list(streams):
        if name in ARMS[arm]:
            streams[name].batch_size = round(BATCH * ARMS[arm][name])
        else:
            del streams[name]
    config.optimizer.update(dict(steps=360, final_learning_rate=1e-6))
    config.checkpoint_every = 120
    asked, labelled = config.evals, demo_zero_shot.get_config().evals
    config.evals = ConfigDict({name: asked[name] for name in ("image_qa", "video_qa")})
    for name, entry in labelled.items():
        if entry.task.name == "zero_shot":
            entry.stream.root = demo_tasks.LABELLED
            config.evals[name] = entry
    return config
