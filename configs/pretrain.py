"""Pretraining as the paper describes it; words: a size, a preset, what a step reads.

    python train.py --config=configs/pretrain.py:large --workdir=runs/pretrain \
        --config.init_from=START
    python eval.py --checkpoint=runs/pretrain --which=best

What a step reads is one of

- "joint" (the default), as in the paper: a batch of images, one of clips of 8 frames and one of
  text alone, and instructions for each of them (`configs/instructions.py`); with the momentum
  teacher, whose soft targets cost a forward pass;
- "uninstructed": the same without instructions, so that nothing labelled is seen;
- "image" or "video": pairs of that kind alone, without a teacher.

Once an epoch the loss of each objective is computed on examples that nothing trains on, and R@1 of
COCO, by which the best checkpoint is kept; `eval.py` does the same on test splits, where there are
such. "video" reads no COCO: there is only its last checkpoint, `--which=last`.

`docs/data.md` says how each source is prepared, into folders of their names below `data/pretrain`;
the labelled ones of the instructions are those of fine-tuning, in `prepared`. Tiny starts from
nothing; START holds the weights of CLIP and BERT for the others, which lack the heads of pairs:

    python -m mplug2_jax.convert bert BERT --config=configs/pretrain.py:large --out=BERT_DIR
    python -m mplug2_jax.convert clip CLIP --config=configs/pretrain.py:large --with=BERT_DIR \
        --out=START

`docs/scaling.md` has what `large` takes of TPU slices, by `python -m mplug2_jax.aot`.
"""

from configs import common, instructions, recipe
from mplug2_jax.contracts.streams import Stream

DATA = instructions.PRETRAIN
EPOCHS = 30
# Where each source of images is, and its texts, which are the weights of the mixture.
IMAGES = {
    "coco": ("coco_karpathy", 567_000), "visual_genome": ("visual_genome", 769_000),
    "sbu": ("sbu", 860_000), "cc3m": ("cc3m", 3_000_000), "cc12m": ("cc12m", 10_000_000),
}
PAIRS = {"image": sum(texts for _, texts in IMAGES.values()), "video": 2_500_000}  # WebVid-2M
TEXTS = {"wikipedia": 20, "c4": 350}  # GB, as the paper has of them
PLAIN = ("image", "video", "text")
STREAMS = {"joint": (*PLAIN, *instructions.SOURCES), "uninstructed": PLAIN, "image": ("image",),
           "video": ("video",)}
BATCHES = {"image": 4_096, "video": 512, "text": 4_096,
           "image_instruct": 512, "video_instruct": 256, "text_instruct": 512}
# (all, vision) by size.
RATES = {"tiny": (1e-4, 1e-5), "base": (1e-4, 1e-5), "large": (5e-5, 5e-6)}
# What START may lack; BERT without a head of masked words is one, too.
NEW = ("heads/vtc", "heads/vtm", "heads/mlm")
# By stream what it is validated on: folder, test split and split for tuning.
HELD_OUT = {"image": ("coco_karpathy", "test", "val"), "video": ("webvid", "val", "val"),
            "text": ("wikipedia", "train[held_out]", "train[held_out]")}
TRAINED = {"wikipedia": "train[rest]"}  # split, where that is not train
LENGTHS = {"image_instruct": (30, 30), "video_instruct": (30, 30), "text_instruct": (128, 10)}

RATE_KEYS = "optimizer.learning_rate optimizer.vision_learning_rate"
_PAIRS = ("stream", "image", "video")
_ASKED = tuple(LENGTHS)
_KEYS = ("frames", "image_size", "crop_area", "flip", "rand_augment")
SOURCES = {
    RATE_KEYS: "paper: large 5e-5, base 1e-4, a tenth of it for the vision encoder; tiny has "
               "base's",
    "optimizer.warmup_steps": "paper: 5,000 steps",
    "epochs": "paper: 30",
    "examples": "paper: 15.2 million image texts, or 2.5 million clips, an epoch: so many media "
                "are drawn, of each source as many as it has texts",
    "optimizer.clip_norm": "ours: as in most pretraining of this kind; the paper names none",
    "task.momentum.teacher": "ALBEF: models/model_pretrain.py, whose decay and alpha are the "
                             "defaults; in the release's YAMLs distill and alpha are the same",
    "task.momentum.ramp_steps": "ALBEF: Pretrain.py, alpha grows over the first epoch",
    "task.negative_block": "ALBEF: models/model_pretrain.py draws hard negatives among a device's "
                           "own examples; 16 are what a device has of the smallest slices",
    "task.objectives.vtc task.objectives.vtm task.objectives.mlm task.objectives.prefix_lm "
    "task.objectives.instruct": "paper: objectives without weights, so all are 1",
    "model.max_positions": "ours: tiny has fewer than the text needs",
    " ".join(f"{name}.batch_size" for name in (*_PAIRS, "text", *_ASKED)):
        "planner: what slices of 256 v5e hold ([scaling.md](../scaling.md)); the paper's are not "
        "known",
    " ".join(f"{name}.text_length" for name in _PAIRS): "mPLUG: pretraining, 30 tokens",
    "text.text_length": "ours: the release's dataset/text_dataset.py reads 600 tokens, of which "
                        "128 are what most models of pairs take",
    " ".join(["stream.resize video.resize video_instruct.resize",
              *(f"{name}.{key}" for name in (*_PAIRS, *_ASKED[:2]) for key in _KEYS)]):
        "release: dataset/__init__.py, pretrain_transform and video_pretrain_transform; "
        "dataset/video_pretrain_dataset.py, num_frames 8",
    " ".join(f"{name}.{key}_length" for name in _ASKED for key in ("prompt", "target")):
        "ours: captions of 30 tokens, sentences of 128, classes of 10",
}


def get_config(options: str = "large"):
    said = recipe.words(options, streams=STREAMS)
    size, chosen = said["size"], said["streams"]
    config = common.base(size, said["preset"])
    config.model.vocab_size = 30_522
    if size == "tiny":
        config.model.max_positions = 128
    config.data.root = DATA
    if "unit" in said:
        config.data.epoch_over = said["unit"]
    config.allow_new = NEW
    config.data.streams.update({name: stream(name, config.model.image_size)
                                for name in STREAMS[chosen]})

    paced = STREAMS[chosen][0]  # the stream whose epochs are counted
    rate, vision_rate = RATES[size]
    config.optimizer.update(dict(
        steps=EPOCHS * PAIRS[paced] // BATCHES[paced], warmup_steps=5_000, weight_decay=0.02,
        learning_rate=rate, vision_learning_rate=vision_rate, final_learning_rate=1e-6,
        clip_norm=1.0))
    config.task = common.task(
        "pretrain", objectives=dict(instruct=float(chosen == "joint")),
        negative_block=16,  # examples: divides what a device has, so nothing travels
        momentum=dict(teacher="text" in STREAMS[chosen],
                      ramp_steps=PAIRS[paced] // BATCHES[paced]))  # an epoch
    config.eval_every, config.eval_limit = PAIRS[paced] // BATCHES[paced], 5_000
    for name in STREAMS[chosen]:
        if name in HELD_OUT:
            validate(config, name, instructed=chosen == "joint")
    if "image" in STREAMS[chosen]:
        config.best = "text_to_image_r1"
    return config


def validate(config, name: str, instructed: bool) -> None:
    """Adds the held-out losses of a stream, and of images retrieval."""
    folder, split, validation = HELD_OUT[name]
    trained = config.data.streams[name]
    examples = {key: trained[key] for key in ("frames", "image_size", "text_length")
                if key in trained}
    if instructed and examples.get("frames"):
        examples |= dict(ask="caption", instruction=instructions.CAPTIONS[name], prompt_length=30,
                         target_length=30)
    for task in ("pretrain", *("retrieval",) * (name == "image")):
        config.evals[f"{name}_{task}"] = common.evaluation(
            task, split, 64, validation, root=f"{DATA}/{folder}", **examples)


def stream(name: str, image_size: int):
    """The stream of that name, of one mixture of sources."""
    pixels = {"image": dict(frames=1, crop_area=(0.2, 1.0), rand_augment=(2, 7)),
              # The release's `pretrain_transform` of videos: a square of 1.14 times the side, flips
              # among RandAugment's operations, a square crop.
              "video": dict(frames=8, resize=1.14, rand_augment=(2, 5)),
              }.get(name.partition("_")[0], {})
    if pixels:
        pixels |= dict(flip=True)
        if image_size != Stream.image_size:
            pixels |= dict(image_size=image_size)
    if name in LENGTHS:
        asked, said = LENGTHS[name]
        return common.stream(instructions.sources(name), BATCHES[name], prompt_length=asked,
                             target_length=said, **pixels)
    mixtures = {
        "image": {source: (folder, texts / PAIRS["image"])
                  for source, (folder, texts) in IMAGES.items()},
        "video": {"webvid": ("webvid", 1.0)},
        "text": {source: (source, size / sum(TEXTS.values())) for source, size in TEXTS.items()},
    }
    sources = {source: common.source(TRAINED.get(source, "train"), weight, root=f"{DATA}/{folder}")
               for source, (folder, weight) in mixtures[name].items()}
    return common.stream(sources, BATCHES[name], text_length=30 if pixels else 128, **pixels)
