"""What a pretrained checkpoint does without any further training, one row of a table a name.

    python -m data.prepare msrvtt_1ka --raw=MSRVTT --out=prepared
    python eval.py --config=configs/zero_shot.py:msrvtt --checkpoint=PRETRAINED \
        --out=runs/zero_shot/msrvtt

The other names, and what is prepared for them: retrieval of `didemo`, `lsmdc`, `coco`
(`coco_karpathy`) and `flickr30k` (`flickr30k_karpathy`); questions of `msrvtt_qa`, `msvd_qa` and
`vqav2`; classes by prompts of `imagenet` (`class_folders`), `kinetics400`, `kinetics600`,
`kinetics700` and `ssv2`; captions of `nocaps`. The words of `configs/pretrain.py` say which model:
`:msrvtt,base`. Every figure has "zero_shot" in its name.

Paper: R@1 47.1 and R@10 79.0 (MSR-VTT 1k-A), R@1 45.7 (DiDeMo), top-1 43.8 (MSRVTT-QA) and 55.3
(MSVD-QA). What it says of the protocol is little; ours:

- Retrieval by the dual encoder alone (`dual_`) and with its best reranked by matching, which
  `task.rerank_by` and `.dual_softmax` change. Checkpoints without `heads/vtm`:
  `--config.evals.msrvtt.task.rerank=0`.
- Questions are answered in the decoder's own words, after pretraining's instruction; with
  `--config.evals.msrvtt_qa.task.answers=FILE` from a list, which is another protocol: the most
  frequent answers of a training split say much about the answers. VQAv2's figure is of `val`; for
  `test`, eval.py writes the server's file.
- Classes by CLIP's templates and its mean of features: of ImageNet the seven that its notebook
  finds best, of Kinetics its 28; of Something-Something ours. ImageNet's folders are numbers: put
  its `LOC_synset_mapping.txt` as `label_words.txt` beside `classes.txt`.
- What pretraining has seen is zero-shot in name alone: COCO's pairs are among its sources, and its
  instructions (`configs/instructions.py`) have ImageNet's and Kinetics-400's labels, which
  `configs/pretrain.py:uninstructed` does without.
- Clips have 8 frames, as in pretraining, and 224 pixels; lengths are those of the fine-tuning.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, instructions, pretrain, recipe

# As pretraining asks first.
QUESTION, CAPTION = instructions.QUESTION[0], instructions.CAPTIONS["image"][0]
# By name: dataset, split, validation, frames, ids of a text, best that are reranked, protocol.
RETRIEVAL = {
    "msrvtt": ("msrvtt_1ka", "test", "test", 8, 25, 128, "msrvtt_1ka"),
    "didemo": ("didemo", "test", "val", 8, 64, 128, "didemo_paragraph"),
    "lsmdc": ("lsmdc", "test", "val", 8, 25, 128, "lsmdc"),
    "coco": ("coco_karpathy", "test", "val", 1, 25, 256, "coco_karpathy_5k"),
    "flickr30k": ("flickr30k_karpathy", "test", "val", 1, 25, 128, "flickr30k_karpathy_1k"),
}
# By name: split, validation, frames.
QUESTIONS = {"msrvtt_qa": ("test", "val", 8), "msvd_qa": ("test", "val", 8),
             "vqav2": ("val", "val", 1)}
PROMPT, ANSWER = 30, 12  # ids, with the instruction
IMAGENET = ("itap of a {}", "a bad photo of the {}", "a origami {}", "a photo of the large {}",
            "a {} in a video game", "art of the {}", "a photo of the small {}")
KINETICS = tuple(f"a {medium} of {words}" for medium in ("photo", "video", "example",
                                                        "demonstration")
                 for words in ("{}", *(f"a person {verb}{{}}" for verb in (
                     "", "using ", "doing ", "during ", "performing ", "practicing "))))
SSV2 = ("{}", "a video of {}", "a video of a person {}", "someone is {}")
# By name: dataset, frames, templates.
CLASSES = {"imagenet": ("class_folders", 1, IMAGENET),
           **{f"kinetics{n}": (f"kinetics{n}", 8, KINETICS) for n in (400, 600, 700)},
           "ssv2": ("ssv2", 8, SSV2)}
DOMAINS = ("in_domain", "near_domain", "out_domain")  # of NoCaps
NAMES = (*RETRIEVAL, *QUESTIONS, *CLASSES, "nocaps")


def get_config(options: str = "msrvtt,large"):
    words = [word.strip() for word in options.split(",") if word.strip()]
    chosen = [word for word in words if word in NAMES]
    if len(chosen) != 1:
        raise ValueError(f"{options!r}: expected one of {', '.join(NAMES)}, and words of "
                         "configs/pretrain.py such as a size")
    (name,) = chosen
    model = ",".join(word for word in words if word != name)
    config = pretrain.get_config(*([model] if model else []))
    config.data.streams, config.evals = ConfigDict(), ConfigDict()  # nothing is trained
    config.best, config.eval_every = "", 0
    makers = {"retrieval": RETRIEVAL, "questions": QUESTIONS, "classes": CLASSES}
    kind = next((kind for kind, names in makers.items() if name in names), "captions")
    make = {"retrieval": retrieval, "questions": questions, "classes": classes,
            "captions": captions}[kind]
    make(config, name)
    return config


def prepare(config: ConfigDict, dataset: str) -> None:
    """Where the data of a row are."""
    config.data.root = f"{recipe.PREPARED}/{dataset}"


def evaluate(config: ConfigDict, name: str, task: str, split: str, validation: str, protocol: str,
             options: dict[str, Any], **examples: Any) -> None:
    """Adds the evaluation of a task on a split; `protocol` begins the names of its figures."""
    frames = examples["frames"]
    config.evals[name] = common.evaluation(
        task, split, 64 if frames == 1 else 32, validation, f"{protocol}_zero_shot", options,
        image_size=config.model.image_size, **examples)


def retrieval(config: ConfigDict, name: str) -> None:
    """The gallery of a test split, searched by texts and by what is seen."""
    dataset, split, validation, frames, length, rerank, protocol = RETRIEVAL[name]
    prepare(config, dataset)
    evaluate(config, name, "retrieval", split, validation, protocol, dict(rerank=rerank),
             frames=frames, text_length=length)


def questions(config: ConfigDict, name: str) -> None:
    """Open-ended answers."""
    split, validation, frames = QUESTIONS[name]
    prepare(config, name)
    asked = dict(options=dict(beams=5, min_length=1, max_length=10), frames=frames,
                 prompt_length=PROMPT, target_length=ANSWER, instruction=QUESTION)
    evaluate(config, name, "qa", split, validation, name, **asked)
    if name == "vqav2":
        recipe.submit(config, "vqav2_test", name, "test", "vqav2_test_zero_shot", "vqav2_test.json")


def classes(config: ConfigDict, name: str) -> None:
    """The likeliest class by prompts."""
    dataset, frames, templates = CLASSES[name]
    prepare(config, dataset)
    folder = f"{config.data.root}/1.0.0"
    options = dict(classes=f"{folder}/classes.txt", templates=templates, average="features")
    if name == "imagenet":
        options["wordings"] = f"{folder}/label_words.txt"
    evaluate(config, name, "zero_shot", "val", "val", name, options, frames=frames)


def captions(config: ConfigDict, name: str) -> None:
    """Captions after pretraining's instruction, of all domains and of each."""
    prepare(config, name)
    options = dict(instruction=CAPTION, beams=5, min_length=8, max_length=25)  # as coco_caption
    for part in ("val", *DOMAINS):
        split = "+".join(DOMAINS) if part == "val" else part
        evaluate(config, f"nocaps_{part}", "captioning", split, split, f"nocaps_{part}", options,
                 frames=1, text_length=25)
