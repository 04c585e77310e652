"""Pretraining as the paper describes it: `:SIZE` or `:SIZE,STREAMS`.

    python train.py --config=configs/pretrain.py:large --workdir=runs/pretrain \
        --config.init_from=START

SIZE is tiny, base or large. STREAMS is what a step reads: "image" (the default), pairs of an image
and a text; "video", clips of 8 frames with their captions; "paper", a batch of images, one of
clips and one of text alone, and the momentum teacher, whose soft targets cost a forward pass.

`docs/data.md` says how each source is prepared; SBU and Visual Genome are read from tar files
(`webdataset`), into folders of their names, the text corpora from plain text (`text_folder`). Tiny
starts from nothing; START holds the weights of CLIP and BERT for the others:

    python -m mplug2_jax.convert bert BERT --config=configs/pretrain.py:large --out=BERT_DIR
    python -m mplug2_jax.convert clip CLIP --config=configs/pretrain.py:large --with=BERT_DIR \
        --out=START

`python -m mplug2_jax.aot` says what a step takes of a TPU slice (`docs/scaling.md`).
"""

from configs import common
from mplug2_jax.model.config import MODULES

DATA = "data/pretrain"
EPOCHS = 30
# Where each source of images is, and its texts, which are the weights of the mixture.
IMAGES = {
    "coco": ("coco_karpathy", 567_000), "visual_genome": ("visual_genome/webdataset", 769_000),
    "sbu": ("sbu/webdataset", 860_000), "cc3m": ("cc3m", 3_000_000), "cc12m": ("cc12m", 10_000_000),
}
PAIRS = {"image": sum(texts for _, texts in IMAGES.values()), "video": 2_500_000}  # WebVid-2M
STREAMS = {"image": ("image",), "video": ("video",), "paper": ("image", "video", "text")}
BATCHES = {"image": 4_096, "video": 512, "text": 4_096}
# (all, vision) by size.
RATES = {"tiny": (1e-4, 1e-5), "base": (1e-4, 1e-5), "large": (5e-5, 5e-6)}


def get_config(options: str = "large,image"):
    size, _, chosen = options.partition(",")
    chosen = chosen or "image"
    if chosen not in STREAMS:
        raise ValueError(f"streams {chosen!r}: expected one of {', '.join(STREAMS)}")
    config = common.base(size)
    config.model.vocab_size = 30_522
    if size == "tiny":
        config.model.max_positions = 128
    if size == "large":
        config.model.remat.update(dict.fromkeys(MODULES, "full"))
    config.data.root, config.data.tokenizer = DATA, f"{DATA}/vocab.txt"

    def stream(name, split, **fields):
        return common.stream(split, BATCHES[name], **fields)

    pixels = dict(image_size=config.model.image_size, text_length=30, crop_area=(0.2, 1.0),
                  flip=True)
    streams = {
        "image": stream("image", {
            name: common.source("train", texts / PAIRS["image"], root=f"{DATA}/{folder}")
            for name, (folder, texts) in IMAGES.items()},
            frames=1, rand_augment=(2, 7), **pixels),
        # A crop of 1 / 1.14 of the sides: the paper's resize to 1.14 times the size, then a crop.
        "video": stream("video", {"webvid": common.source("train", 1, root=f"{DATA}/webvid")},
                        frames=8, rand_augment=(2, 5),
                        **pixels | dict(crop_area=(1.14 ** -2, 1.14 ** -2))),
        "text": stream(
            "text", {"corpus": common.source("train", 1, root=f"{DATA}/text_folder")},
            text_length=128),
    }
    config.data.streams.update({name: streams[name] for name in STREAMS[chosen]})

    paced = STREAMS[chosen][0]  # the stream whose epochs are counted
    rate, vision_rate = RATES[size]
    config.optimizer.update(dict(
        steps=EPOCHS * PAIRS[paced] // BATCHES[paced], warmup_steps=5_000, weight_decay=0.02,
        learning_rate=rate, vision_learning_rate=vision_rate, final_learning_rate=1e-6,
        clip_norm=1.0))
    config.task = common.task(
        "pretrain",
        negative_block=16,  # examples: divides what a device has, so nothing travels
        momentum=dict(teacher=chosen == "paper",
                      ramp_steps=PAIRS[paced] // BATCHES[paced]))  # an epoch
    return config
