"""Fine-tuning of the demo's checkpoint on one family of tasks over moving digits.

    python -m data.prepare moving_digits_tasks --out=runs/demo/tasks
    python train.py --config=configs/demo_tasks.py:image_digit --workdir=runs/demo/image_digit
    python eval.py --checkpoint=runs/demo/image_digit

The families: image_digit, video_digit, video_motion, text_motion, text_pair, image_text,
image_pair, grounding (see `docs/data.md`); caption and qa of the demo's corpus; retrieval, which
learns from its clips and searches a gallery of new ones; instructions, which learns caption, qa and
grounding in one run; and caption_scst, which goes on from caption and raises its CIDEr. With
`:image_digit,scratch` nothing is loaded. `make demo-tasks` runs them all.
"""

from ml_collections import ConfigDict

from configs import common, demo
from data.demo.tasks import CLASSES

# By classified family: what of a record is classified, and what of it the streams give.
INPUTS = {
    "image_digit": ("visual", dict(frames=1)),
    "video_digit": ("visual", dict(frames=4)),
    "video_motion": ("visual", dict(frames=4)),
    "text_motion": ("text", dict(text_length=24)),
    "text_pair": ("text", dict(text_length=48, text_pair=True)),
    "image_text": ("both", dict(frames=1, text_length=16)),
    "image_pair": ("images", dict(frames=2, text_length=16)),
}
# While nothing is known of the place, L1 and GIoU pull to the mean box, away from any token.
BOX_WEIGHT = 0.2
# By generated family: the split, and the task and the stream beside what all of these have. An
# instruction says what is wanted, in words of the corpus. No text is cut off at these lengths.
GENERATED = {
    # From the image alone a decoder soon says the box of either digit, and never reads the phrase.
    "grounding": ("grounding", dict(location_bins=32, box_weight=BOX_WEIGHT, memory="prompt"),
                  dict(ask="box", instruction="where is", prompt_length=8)),
    "caption": ("image", dict(max_length=15),
                dict(ask="caption", instruction="what is this image showing", prompt_length=8,
                     text_length=16)),
    "qa": ("image", dict(max_length=3),
           dict(ask="question", instruction="the image", prompt_length=12, target_length=4)),
}
NAMES = {"grounding": "grounding", "caption": "captioning", "qa": "qa"}
FAMILIES = (*INPUTS, *GENERATED, "caption_scst", "instructions", "retrieval")
STEPS = {"video_digit": 300, "video_motion": 300, "image_pair": 300, "retrieval": 340,
         "grounding": 1200, "instructions": 2000, "caption_scst": 120}
LABELLED = f"{demo.RUN}/tasks"
# Where things are is learned soonest where there is but one: so in most images of the corpus.
ALONE = common.source("image_train", 1.0, root=demo.DATA)
SEEN = {"two": common.source("grounding_train", 1.0), "corpus": ALONE}


def root(family: str) -> str:
    """Where the family's records are."""
    return LABELLED if family in (*INPUTS, "grounding", "retrieval") else demo.DATA


def generated(family: str, size: int) -> tuple[ConfigDict, dict]:
    """The task of a generated family, and its stream's options but for split and batch size."""
    _, options, stream = GENERATED[family]
    return (common.task(NAMES[family], **options),
            dict(image_size=size, frames=1, **stream))


def places(config: ConfigDict) -> None:
    """For tasks that ask where: captions and questions of the corpus' images never do.

    So the checkpoint's positions are as small as they were drawn, and hardly anything of where
    things are is in its features. Wider positions are, at once, and digits and colours stay. The
    vision encoder is not trained: told a colour and a place, it soon loses the digits.
    """
    config.model.position_gain = 12.0
    config.data.streams.train.batch_size = 32
    config.optimizer.frozen = ("^vision/",)
    config.optimizer.learning_rate = 7e-4


def evaluate(config: ConfigDict, name: str, task: ConfigDict, split: str, options: dict) -> None:
    """Adds the evaluation of a task on a split."""
    config.evals[name] = common.evaluation(
        task.name, f"{split}_test", 64, f"{split}_validation", options=common.named(task),
        **options)


def retrieval(config: ConfigDict, size: int) -> None:
    """Learns from the corpus' clips, and searches a gallery of new ones."""
    config.task = common.task("retrieval", objectives=dict(vtc=0.3, vtm=3.0))
    options = dict(image_size=size, frames=4, text_length=24)
    # Of 5,000 clips many show the same: drawn at random, two of five with one digit have a twin
    # among 256, of all negatives the hardest, and a false one. Neighbours differ, 480 of them,
    # but for the few batches in which the clips begin again. Contrast and matching have to tell a
    # digit that moves left from the same one that moves right; few of a small batch are so alike.
    # Contrast has all others of the batch for each pair, matching but two: it has more of a step.
    config.data.streams.train = common.stream("video_train", 256, root=demo.DATA, shuffle=False,
                                              **options)
    config.data.epoch_over = "media"  # the captions of a clip are neighbours, too
    evaluate(config, "video_retrieval", common.task("retrieval"), "gallery", options)
    config.optimizer.update(dict(learning_rate=1e-3, vision_learning_rate=1e-3, warmup_steps=15))
    config.log_every = 10


def instructions(config: ConfigDict, size: int) -> None:
    """Learns caption, qa and grounding in one run, and is evaluated by each of them."""
    config.task = common.task("instructions", location_bins=32, box_weight=BOX_WEIGHT,
                              memory="prompt")
    sources = {name: common.source(f"{split}_train", 1.0, root=root(name), ask=stream["ask"],
                                   instruction=stream["instruction"])
               for name, (split, _, stream) in GENERATED.items()}
    sources["corpus"] = sources["grounding"] | ALONE
    config.data.streams.train = common.stream(sources, 64, image_size=size, frames=1,
                                              prompt_length=12, target_length=16)
    for name, (split, _, _) in GENERATED.items():
        task, options = generated(name, size)
        task.memory = config.task.memory
        evaluate(config, name, task, split, options | dict(root=root(name)))
    places(config)


def get_config(family: str = "image_digit"):
    family, _, start = family.partition(",")
    if family not in FAMILIES or start not in ("", "scratch"):
        raise ValueError(f"family {family!r}{start and ', '}{start}: expected one of "
                         f"{', '.join(FAMILIES)}, with or without ',scratch'")
    config = demo.get_config()
    size, config.data.root = config.model.image_size, root(family)
    config.data.streams, config.evals = ConfigDict(), ConfigDict()
    config.optimizer.update(dict(steps=STEPS.get(family, 400), learning_rate=5e-4,
                                 vision_learning_rate=3e-4))
    config.init_from, config.allow_new = ("", ()) if start else (demo.RUN, ("heads/classify",))

    def add(task, split, options, train=None):
        config.task = task
        config.data.streams.train = common.stream(train or f"{split}_train", 32, **options)
        evaluate(config, family, task, split, options)

    if family in INPUTS:
        inputs, fields = INPUTS[family]
        add(common.task("classification", inputs=inputs, classes=CLASSES[family]), family,
            dict(image_size=size, **fields))
    elif family in GENERATED:
        task, options = generated(family, size)
        add(task, GENERATED[family][0], options, SEEN if family == "grounding" else None)
        if family == "grounding":
            places(config)
    elif family == "caption_scst":
        task, options = generated("caption", size)
        task.samples = 5
        add(task, "image", options)
        config.optimizer.update(dict(warmup_steps=10, learning_rate=2e-4,
                                     vision_learning_rate=1e-4))
        config.init_from = "" if start else f"{demo.RUN}/caption"
    else:
        {"retrieval": retrieval, "instructions": instructions}[family](config, size)
    return config
