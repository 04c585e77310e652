"""Data of one's own; words: a task (`caption` if none is given), `image`, `test`, `demo`, a size.

    python -m data.prepare table --raw=CLIPS --out=prepared --table=captions.csv --share=val=0.1
    python train.py --config=configs/own.py:caption,large --workdir=runs/own \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/own --which=best

Tasks: caption, qa, retrieval, classification and grounding, of clips; `:caption,image` of images,
and `grounding` of images alone. It reports on split `val`, and tunes on a twentieth of `train` that
it leaves out; with `test` it trains on `train`, tunes on `val` and reports on `test`. With `demo`
it starts from the demo's weights (`make demo`) and has its sizes and its vocabulary.

It is trained for 2,000 steps, and validated every 100, for how much data there is is not known
here: `--config.optimizer.steps` and `--config.eval_every` say otherwise. The recipe is ours.
"""

from ml_collections import ConfigDict

from configs import common, demo, recipe

DATA = "table"  # of `python -m data.prepare table`
# By task: its name, its options, the heads that pretraining may lack, what its stream has.
DATASETS = {
    "caption": ("captioning", dict(memory="visual", beams=5, min_length=4, max_length=40), (),
                dict(text_length=48)),
    "qa": ("qa", dict(beams=5, min_length=1, max_length=10), (),
           dict(prompt_length=50, target_length=12)),
    "retrieval": ("retrieval", dict(rerank=64), ("heads/vtc", "heads/vtm"), dict(text_length=48)),
    "classification": ("classification", dict(inputs="visual", label_smoothing=0.1),
                       ("heads/classify",), {}),
    "grounding": ("grounding", {}, (), dict(ask="box", prompt_length=20)),
}
VARIANTS = tuple(f"{task},image" for task in DATASETS if task != "grounding")
BATCH, STEPS, EVERY = 64, 2_000, 100
# Of the demo: its frames, what its streams are cut to, options of its few pieces and positions.
DEMO = dict(frames=4, text_length=48, prompt_length=24, target_length=12)
DEMO_OPTIONS = {"caption": dict(max_length=40), "grounding": dict(location_bins=32)}
SPLITS = {"": ("train[rest]", "train[held_out]", "val"), "test": ("train", "val", "test")}
SOURCES = {
    "optimizer.learning_rate optimizer.vision_learning_rate":
        "ours: the release's, of its video tasks; a new classifier learns at five times that",
    "optimizer.warmup_steps": "ours: a tenth of the run",
    "epochs examples": "ours: a validation every 100 steps, 20 of them",
    "stream.batch_size": "ours: an hour's training on one device",
    "stream.frames stream.image_size": "release: the YAMLs of its video tasks, model_num_frames "
                                       "and image_res; data: an image is a clip of one frame",
    "stream.crop_area stream.flip stream.rand_augment":
        "release: dataset/__init__.py, its transforms of clips and of images",
    "stream.text_length stream.prompt_length stream.target_length task.min_length task.max_length":
        "ours: longer than what the published data sets have, for texts of any length",
    "task.beams": "release: video_caption_mplug2.py and video_qa_mplug2.py, beam_size",
    "task.label_smoothing": "MAE: main_finetune.py, smoothing 0.1",
    "task.rerank": "ours: a gallery of one's own is small",
    "task.objectives.vtc task.objectives.vtm": "mPLUG: retrieval_img_mplug.py, loss_ita + loss_itm",
}


def get_config(options: str = "caption,large"):
    said = recipe.words(options, task=DATASETS, medium=("", "image", "video"), splits=SPLITS,
                        weights=("", "demo"))
    medium = said["medium"] or ("image" if said["task"] == "grounding" else "video")
    if said["task"] == "grounding" and medium == "video":
        raise ValueError(f"{options!r}: grounding is of images")
    name, given, new, lengths = DATASETS[said["task"]]
    config = recipe.start(said, DATA, new=new)
    seen = dict(frames=16 if medium == "video" else 1)
    if said["weights"]:
        given, lengths = _as_the_demo(config, given | DEMO_OPTIONS.get(said["task"], {}), lengths)
        seen["frames"] = min(seen["frames"], DEMO["frames"])
    if name == "classification":
        given = given | dict(classes=f"{config.data.root}/1.0.0/classes.txt")
    config.task = common.task(name, **given)
    seen |= dict(image_size=config.model.image_size) | lengths
    train, tuned, reported = SPLITS[said["splits"]]
    augment = recipe.VIDEOS if medium == "video" else recipe.IMAGES
    config.data.streams.own = common.stream(train, BATCH, **augment, **seen)
    rate = 1e-4 if name == "classification" else 2e-5
    recipe.pace(config, recipe.alike(BATCH * EVERY), BATCH, epochs=STEPS // EVERY, rate=rate,
                vision_rate=rate / 10, warmup=STEPS // 10)
    if said["weights"]:
        config.optimizer.update(dict(learning_rate=5e-4, vision_learning_rate=3e-4, b2=0.98))
    recipe.evaluate(config, "own", reported, tuned, **seen)
    if name == "classification":
        _follow_root(config)
    return config


def _as_the_demo(config: ConfigDict, given: dict, lengths: dict) -> tuple[dict, dict]:
    """Gives a config the demo's sizes and start; a task's options and lengths that suit them."""
    own = demo.get_config()
    config.model.update(own.model.to_dict())
    config.data.tokenizer, config.init_from = own.data.tokenizer, demo.RUN
    config.allow_new = ("heads/classify",)
    return given, {key: min(value, DEMO[key]) if key in DEMO else value
                   for key, value in lengths.items()}


def _follow_root(config: ConfigDict) -> None:
    """The classes are those of `data.root`, wherever the command line says that it is."""
    classes = config.data.get_ref("root") + "/1.0.0/classes.txt"
    config.task.classes = config.evals.own.task.classes = classes
