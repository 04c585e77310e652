"""What pretraining asks: the instructions of `configs/pretrain.py`, in several wordings each.

The paper speaks of instructions in pretraining and names neither wordings nor data; these are ours,
after what the field does: FLAN (arXiv:2109.01652) rewrites labelled sets as instructions in several
wordings, InstructBLIP (arXiv:2305.06500) captions, questions and answers, and draws data sets in
proportion to the square root of their sizes. Captions need no data of their own, nor do the
questions of Visual Genome. The rest is of training splits. What is instructed is no zero-shot
figure any more: TGIF-QA, ImageNet, Kinetics and GLUE, which `configs/pretrain.py:uninstructed` does
not see. VQAv2, MSRVTT-QA and MSVD-QA are held out.

Several wordings are drawn from; an evaluation asks with the first. ImageNet's folders are named by
numbers: put its `LOC_synset_mapping.txt` as `label_words.txt` beside `classes.txt`.
"""

import math

from configs import common, recipe

PRETRAIN = "data/pretrain"
# By what is asked; an empty one is the bare question.
QUESTION = ("answer the question", "question", "answer in a few words", "")
CAPTIONS = {kind: (f"describe the {kind}", f"a short description of the {kind}",
                   f"what does the {kind} show", f"write a caption for the {kind}",
                   f"say briefly what can be seen in the {kind}")
            for kind in ("image", "video")}
OBJECT = ("what is the object in the image", "name the class of the image",
          "what is this a picture of", "say what the image is of")
ACTION = ("what action does the video show", "name the action in the video",
          "what is being done in the video", "say what happens in the video")
FOLLOWS = ("does the second sentence follow from the first", "entailment neutral or contradiction",
           "what is the relation of the two sentences")
ANSWERS = ("does the sentence answer the question", "entailment or not entailment",
           "is the question answered by the sentence")
DUPLICATE = ("do the two questions ask the same", "duplicate or not duplicate",
             "are these questions duplicates")
REVIEW = ("is the review positive or negative", "what is the sentiment of the sentence",
          "positive or negative")
# By stream and source: folder, records (or texts, or questions), what is asked and how.
SOURCES: dict[str, dict[str, tuple[str, int, str, tuple[str, ...]]]] = {
    "image_instruct": {
        "caption": (f"{PRETRAIN}/coco_karpathy", 567_000, "caption", CAPTIONS["image"]),
        "question": (f"{PRETRAIN}/visual_genome", 1_445_322, "question", QUESTION),
        "class": (f"{recipe.PREPARED}/class_folders", 1_281_167, "class", OBJECT),
    },
    "video_instruct": {
        "caption": (f"{PRETRAIN}/webvid", 2_500_000, "caption", CAPTIONS["video"]),
        "question": (f"{recipe.PREPARED}/tgif_frameqa", 39_392, "question", QUESTION),
        "class": (f"{recipe.PREPARED}/kinetics400", 246_245, "class", ACTION),
    },
    "text_instruct": {
        name: (f"{recipe.PREPARED}/glue_{name}", records, "class", wordings)
        for name, records, wordings in (
            ("mnli", 392_702, FOLLOWS), ("qnli", 104_743, ANSWERS), ("qqp", 363_849, DUPLICATE),
            ("sst2", 67_349, REVIEW))
    },
}


def sources(stream: str) -> dict[str, dict]:
    """The mixture of a stream of instructions."""
    roots = {name: math.sqrt(records) for name, (_, records, _, _) in SOURCES[stream].items()}
    return {name: common.source("train", roots[name] / sum(roots.values()), root=folder, ask=ask,
                                instruction=wordings)
            for name, (folder, _, ask, wordings) in SOURCES[stream].items()}
