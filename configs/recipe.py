"""What fine-tuning configs share: words, places of data, the pace, evaluations, sources of numbers.

`PREPARED` is the `--out` of `python -m data.prepare`; the vocabulary is BERT's, uncased.

Every config has a table `SOURCES`, "KEY KEY ...": "REFERENCE: where", of its own numbers; `SHARED`
has those that are the same everywhere. A key is `epochs`, `examples` (that an epoch goes over), or
that of a config with `stream` for any stream of training, and `evaluation` for what evaluations
have otherwise. `docs/reference/recipes.md` is made of them, and a test asks for every number.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common, sizes
from mplug2_jax import tasks
from mplug2_jax.contracts.streams import UNITS

PREPARED = "prepared"
SIZES = tuple(sizes.SIZES)
HELD_OUT = 5_000  # records of a drawn validation split at most, and at most a twentieth of all
LIMIT = 5_000  # examples of a validation during training at most
FEW = 1_000  # of a slow one: with several views an example, or with reranking
IMAGES = dict(crop_area=(0.5, 1.0), flip=True, rand_augment=(2, 7))
VIDEOS = dict(crop_area=(0.5, 1.0), flip=True, rand_augment=(2, 5))
# By task the figure that the best checkpoint is chosen by.
BEST = {"captioning": "{kind}_caption_cider", "qa": "{kind}_qa_accuracy",
        "retrieval": "text_to_{kind}_r1", "grounding": "{kind}_grounding_accuracy",
        "classification": "{kind}_class_accuracy"}

REFERENCES = {
    "paper": "arXiv 2302.00402, what is handed down of its pretraining details; not compared with "
             "its text",
    "release": "X-PLUG/mPLUG-2 at a46aa97; a YAML is one of `configs_video/`",
    "mPLUG": "the predecessor: `alibaba/AliceMind` at 3b159e6, folder `mPLUG`; its image tasks "
             "share the release's transforms, and the release has no files of theirs",
    "ALBEF": "`salesforce/ALBEF` at 91de3c1, whose recipe mPLUG began with",
    "LAVIS": "`salesforce/LAVIS` at 0bde2b2, the code of InstructBLIP",
    "MAE": "`facebookresearch/mae` at 2f170f2, `FINETUNE.md`, ViT-Large",
    "BERT": "`google-research/bert`, `README.md` (its GLUE example) and `run_classifier.py`",
    "RoBERTa": "arXiv 1907.11692, table 10",
    "UniFormerV2": "`OpenGVLab/UniFormerV2` at 7c18fd6, `MODEL_ZOO.md`, CLIP ViT-L/14",
    "VideoMAE": "`MCG-NJU/VideoMAE` at 26abf53, `scripts/`",
    "planner": "compiled for the hardware by `python -m mplug2_jax.aot`",
    "data": "counted in the files that are published ([data.md](../data.md))",
    "ours": "no source: what we chose, and why",
}
SHARED = {
    "optimizer.final_learning_rate optimizer.weight_decay":
        "release: all YAMLs, min_lr (and warmup_lr) and weight_decay; mPLUG's and ALBEF's min_lr "
        "and weight_decay are the same",
    "optimizer.b1 optimizer.b2": "release: all YAMLs, betas (which its code leaves at the same "
                                 "defaults)",
    "optimizer.clip_norm": "ours: the release clips nothing; mPLUG clips at 1.0 where it does, in "
                           "VQA (configs/ds_config.json)",
    "model.dropout": "release: configs/config_bert_large_text.json",
    "evaluation.batch_size": "ours: what fits; no figure depends on it",
    "eval_limit": "ours: a validation should take a few percent of its epoch",
}
VIDEO_TASK = {  # the release's, for captioning and question answering of videos
    "optimizer.learning_rate optimizer.vision_learning_rate": "release: YAML, lr1 and lr2",
    "epochs": "release: YAML, schedular.epochs",
    "stream.frames stream.image_size": "release: YAML, model_num_frames and image_res",
    "stream.crop_area stream.flip stream.rand_augment":
        "release: dataset/__init__.py, video_train_transform",
}
VIDEO_CAPTION = VIDEO_TASK | {
    "stream.batch_size": "release: YAML, batch_size_train 4; scripts/run_videocaption.sh, 8 GPUs a "
                         "node, one node taken; video_caption_mplug2.py, accum_steps 2",
    "optimizer.warmup_steps":
        "release: YAML, warmup_epochs 200, which count iterations (scheduler.step(i) each), two of "
        "them an update. Not followed: in the first epoch every 100th iteration falls back to the "
        "rate of warm-up step i / 100 (step_size 100), which looks like a slip",
    "stream.text_length": "release: video_caption_mplug2.py, max_length 20 cuts training captions "
                          "too, with [CLS], the prompt and [SEP]",
    "task.beams task.min_length task.max_length":
        "release: video_caption_mplug2.py, beam_size, min_length and max_length",
    "task.caption_prompt": "release: YAML, prompt",
}
VIDEO_QA = VIDEO_TASK | {
    "stream.batch_size": "release: YAML, batch_size_train 4; scripts/run_videoqa.sh, 8 GPUs a "
                         "node, one node taken; video_qa_mplug2.py, accum_steps 1",
    "optimizer.warmup_steps": "release: YAML, warmup_epochs 200, which count iterations (step_size "
                              "1 in video_qa_mplug2.py)",
    "stream.prompt_length": "release: video_qa_mplug2.py, max_input_length 50 where the YAML says "
                            "add_ocr, as all do; no text of OCR is added to videos. Its cut at 30 "
                            "words in training is left out",
    "task.beams task.min_length task.max_length":
        "release: video_qa_mplug2.py, beam_size, min_length and max_length",
    "stream.target_length": "ours: the 10 tokens that are generated, [CLS] and [SEP]; the release "
                            "cuts no answer",
}
SCST = {  # what `self_critical` has otherwise
    "optimizer.learning_rate optimizer.vision_learning_rate optimizer.final_learning_rate epochs":
        "with `scst` mPLUG: configs/caption_mplug_large_scst.yaml, lr1, lr2, min_lr and epochs",
    "optimizer.warmup_steps": "with `scst` ours: none; mPLUG's begins at 1e-5, above the peak",
    "task.samples": "mPLUG: caption_mplug_scst.py, beam_size 5; its captions are those of a beam "
                    "search, here they are drawn",
}
PIXELS = {  # of images, 336 a side where patches are 14 pixels wide
    "stream.image_size": "mPLUG: configs/*_large.yaml, image_res 336 (SIDE * 3 / 2)",
    "stream.frames": "data: an image is a clip of one frame",
    "stream.crop_area stream.flip stream.rand_augment":
        "release: dataset/__init__.py, train_transform of images",
}
IMAGE_RETRIEVAL = PIXELS | {
    "optimizer.learning_rate optimizer.vision_learning_rate":
        "mPLUG: configs/retrieval_*_mplug_large.yaml, lr1 and lr2",
    "epochs": "mPLUG: configs/retrieval_*_mplug_large.yaml, epochs",
    "optimizer.warmup_steps": "mPLUG: retrieval_img_mplug.py, warmup_epochs 1 of 100 iterations; "
                              "there from 1e-5, so that it changes lr2 alone",
    "stream.batch_size": "mPLUG: the YAML's batch_size_train 128; scripts/retrieval_*.sh, 8 GPUs. "
                         "Its queue of 65,536 and its teacher are left out",
    "stream.text_length": "mPLUG: retrieval_img_mplug.py, max_length 30",
    "task.rerank": "mPLUG: configs/retrieval_*_mplug_large.yaml, k_test",
    "task.objectives.vtc task.objectives.vtm": "mPLUG: retrieval_img_mplug.py, loss_ita + loss_itm",
}
VIDEO_RETRIEVAL = {  # the release has no file of it but the data set's class
    "optimizer.learning_rate optimizer.vision_learning_rate":
        "release: the YAMLs of its other video tasks, lr1 and lr2",
    "optimizer.warmup_steps": "mPLUG: configs/retrieval_msrvtt_mplug_large.yaml, warmup_epochs 1 "
                              "of 100 iterations",
    "stream.frames stream.image_size":
        "release: the YAMLs of its other video tasks, model_num_frames and image_res",
    "stream.crop_area stream.flip stream.rand_augment":
        "release: dataset/__init__.py, video_train_transform",
    "stream.batch_size": "ours: negatives are those of the batch; mPLUG has 32 a GPU and a queue",
    "task.rerank": "mPLUG: configs/retrieval_msrvtt_mplug_large.yaml, k_test",
    "task.objectives.vtc task.objectives.vtm": "mPLUG: retrieval_img_mplug.py, loss_ita + loss_itm",
}


def also(table: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    """Sources with others of the same numbers behind them, for what a variant has otherwise."""
    found = flat(SHARED) | flat(table)
    return flat(table) | {key: f"{found[key]}; {source}" if key in found else source
                          for key, source in flat(more).items()}


def flat(table: dict[str, str]) -> dict[str, str]:
    """A table of sources with one key each."""
    return {key: source for keys, source in table.items() for key in keys.split()}


def words(options: str, **kinds: Iterable[str]) -> dict[str, str]:
    """What the words behind a config's colon choose, in any order: "large,paper", "cola,base".

    Args:
      options: words with commas between them.
      kinds: by name the words of each kind that this config has beside `size` and `preset`; the
        first is what is meant where none is given, "" for nothing.

    Returns:
      The word of each kind: {"size": "large", "preset": "release", ...}; and a `unit`, where an
      epoch is to go over another than the task's: "items" or "media".

    Raises:
      ValueError: a word is of no kind, or two are of one.
    """
    known = {"size": SIZES, "preset": tuple(sizes.PRESETS)}
    known |= {kind: tuple(choices) for kind, choices in kinds.items()} | {"unit": UNITS}
    chosen: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in options.split(","))):
        kind = next((kind for kind, choices in known.items() if word in choices), None)
        if kind is None:
            expected = ", ".join(f"a {kind} ({', '.join(filter(None, choices))})"
                                 for kind, choices in known.items())
            raise ValueError(f"{word!r} of {options!r}: expected {expected}")
        if kind in chosen:
            raise ValueError(f"{options!r}: {chosen[kind]!r} and {word!r} are both a {kind}; "
                             "give one")
        chosen[kind] = word
    return {kind: choices[0] for kind, choices in known.items() if kind != "unit"} | chosen


def start(said: str | dict[str, str], dataset: str, new: tuple[str, ...] = ()) -> ConfigDict:
    """A config of a prepared dataset.

    Args:
      said: words, where the config has none of its own; or what `words` made of them.
      dataset: its folder.
      new: modules that `init_from` may lack: heads that no pretraining has, and what START, the
        weights of CLIP and BERT, lacks. The log names what was new.
    """
    chosen = words(said) if isinstance(said, str) else said
    config = common.base(chosen["size"], chosen["preset"])
    config.model.update(dict(vocab_size=30_522, dropout=0.1))
    config.data.root = f"{PREPARED}/{dataset}"
    if "unit" in chosen:
        config.data.epoch_over = chosen["unit"]
    config.allow_new = new
    return config


def rest(records: int) -> int:
    """Of so many records those of the part `[rest]`, which the part `[held_out]` leaves."""
    return records - max(1, min(HELD_OUT, records // 20))


def alike(number: int) -> dict[str, int]:
    """So many items, of as many media: each has one."""
    return dict.fromkeys(UNITS, number)


def epoch_of(config: ConfigDict, examples: Mapping[str, int]) -> int:
    """Examples of an epoch: so many as there are of what it goes over.

    That is what `data.epoch_over` says, or the config's task.

    Args:
      config: with its task.
      examples: of the training split, by unit ("items", "media"), as far as they are known.

    Raises:
      ValueError: that of the unit is not.
    """
    unit = config.data.epoch_over or tasks.load(config.task.name).epoch_over
    if unit not in examples:
        raise ValueError(f"{unit!r}: how many {unit} an epoch has is not known here; set "
                         f"data.epoch_over, optimizer.steps and eval_every of the run")
    return examples[unit]


def pace(config: ConfigDict, examples: Mapping[str, int], batch: int, epochs: float,
         rate: float = 2e-5, vision_rate: float = 2e-6, warmup: int = 200) -> None:
    """The optimizer's steps and rates: a warm-up, and a cosine down; a validation every epoch.

    What an epoch has beyond whole batches is left out, as in the release.

    Args:
      config: gets them.
      examples: of the training split, by unit: an epoch goes over one of them (`epoch_of`).
      batch: examples a step.
      epochs: of the run.
      rate, vision_rate: at the peak.
      warmup: steps.
    """
    config.eval_every = epoch_of(config, examples) // batch
    config.optimizer.update(dict(
        steps=int(epochs * config.eval_every), learning_rate=rate, vision_learning_rate=vision_rate,
        final_learning_rate=1e-6, warmup_steps=warmup, weight_decay=0.02))


def self_critical(config: ConfigDict, examples: Mapping[str, int], batch: int) -> None:
    """Turns captioning into SCST, which raises CIDEr-D itself; begins with a trained captioner."""
    config.task.samples = 5
    pace(config, examples, batch, epochs=5, rate=1e-6, vision_rate=1e-6, warmup=0)
    config.optimizer.final_learning_rate = 8e-8


def evaluate(config: ConfigDict, name: str, split: str, validation: str, batch: int = 32,
             kind: str = "", best: str = "", limit: int = LIMIT, **examples: Any) -> None:
    """Adds an evaluation of the config's own task on a split, with the stream's options.

    The best checkpoint is that of the first evaluation whose validation is not its split.

    Args:
      config: gets it.
      name: of the evaluation.
      split: to report.
      validation: to tune on, and to choose the best checkpoint by.
      batch: examples at once.
      kind: in front of the names of its figures.
      best: the name of the figure to choose by, with "{kind}", where it is not the task's `BEST`.
      limit: examples of a validation at most.
      examples: of the stream.
    """
    config.evals[name] = common.evaluation(
        config.task.name, split, batch, validation, kind, common.named(config.task), **examples)
    if not config.best and split != validation:
        frames = examples.get("frames", 0)
        shown = kind or ("text" if not frames else "image" if frames == 1 else "video")
        config.best = (best or BEST[config.task.name]).format(kind=shown)
        config.eval_limit = limit


def submit(config: ConfigDict, name: str, like: str, split: str, kind: str, file: str) -> None:
    """Adds an evaluation like another, of a split whose answers a server keeps.

    Args:
      config: gets it.
      name: of the evaluation.
      like: the name of the other one.
      split: to predict; nothing is tuned on it.
      kind: in front of the names of its figures, if it has any.
      file: that eval.py writes for the server.
    """
    entry = config.evals[like].copy_and_resolve_references()
    entry.stream.split, entry.validation, entry.kind = split, "", kind
    entry.submission = file
    config.evals[name] = entry
