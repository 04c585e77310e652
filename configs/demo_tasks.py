"""Fine-tuning of the demo's checkpoint on one family of labelled moving digits.

    python -m data.prepare moving_digits_tasks --out=runs/demo/tasks
    python train.py --config=configs/demo_tasks.py:image_digit --workdir=runs/demo/image_digit
    python eval.py --checkpoint=runs/demo/image_digit

The families: image_digit, video_digit, video_motion, text_motion, text_pair, image_text,
image_pair, grounding (see `docs/data.md`). With `:image_digit,scratch` nothing is loaded.
"""

from ml_collections import ConfigDict

from configs import common, demo
from data.moving_digits_tasks import CLASSES

# By family: what is classified, and what of a record the streams give.
INPUTS = {
    "image_digit": ("visual", dict(frames=1)),
    "video_digit": ("visual", dict(frames=4)),
    "video_motion": ("visual", dict(frames=4)),
    "text_motion": ("text", dict(text_length=24)),
    "text_pair": ("text", dict(text_length=48, text_pair=True)),
    "image_text": ("both", dict(frames=1, text_length=24)),
    "image_pair": ("images", dict(frames=2, text_length=24)),
    "grounding": ("", dict(frames=1, prompt_length=8, ask="box")),
}


def get_config(family: str = "image_digit"):
    family, _, start = family.partition(",")
    if family not in INPUTS or start not in ("", "scratch"):
        raise ValueError(f"family {family!r}{start and ', '}{start}: expected one of "
                         f"{', '.join(INPUTS)}, with or without ',scratch'")
    inputs, fields = INPUTS[family]
    config = demo.get_config()
    config.data.root, classes = f"{demo.RUN}/tasks", CLASSES.get(family, ())
    if family == "grounding":
        config.task = common.task("grounding", location_bins=32)
    else:
        config.task = common.task("classification", inputs=inputs, classes=classes)
    examples = dict(image_size=config.model.image_size, classes=classes, **fields)
    config.data.streams = ConfigDict(dict(
        train=common.stream(f"{family}_train", 32, **examples)))
    config.optimizer.update(dict(steps=600, learning_rate=5e-4, vision_learning_rate=3e-4))
    config.init_from, config.allow_new = ("", ()) if start else (demo.RUN, ("heads/classify",))
    config.evals = ConfigDict({family: common.evaluation(
        config.task.copy_and_resolve_references(),
        common.stream(f"{family}_test", 64, **examples), f"{family}_validation")})
    return config
