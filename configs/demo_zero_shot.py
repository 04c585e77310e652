"""Zero-shot classification of labelled moving digits by the demo's pretraining checkpoint.

    python -m data.prepare moving_digits_tasks --out=runs/demo/tasks
    python eval.py --config=configs/demo_zero_shot.py --checkpoint=runs/demo --out=runs/zero

Nothing is trained. Prompts are sentences of the corpus' grammar, which names digit, colour and
motion always: for each class there are prompts with each of the other words. Beside them k-NN, as
another way to use the features as they are. The same checkpoint's retrieval, captions and answers,
for which nothing is trained either, are the evaluations of `configs/demo.py`.
"""

from ml_collections import ConfigDict

from configs import common, demo
from data.demo.tasks import CLASSES
from data.demo.texts import COLOURS, DIGITS

_MOVES = "moves {0}|moving {0}|sliding {0}|drifts {0}"
WORDINGS = {  # of `CLASSES["video_motion"]`, in its order
    **{way: _MOVES.format(way) for way in ("left", "right")},
    **{way: f"{_MOVES.format(way)}|moves {way}wards" for way in ("up", "down")},
    "growing": "grows|growing|getting bigger|becoming larger",
    "still": "stays still|staying still|not moving|standing still",
}
_DIGIT = tuple(f"{start}a {colour} {{}}{end}" for colour in COLOURS
               for start, end in (("", ""), ("a picture of ", ""), ("there is ", "")))
# By family: frames, templates, wordings.
PROMPTS = {
    "image_digit": (1, _DIGIT, ()),
    "video_digit": (4, tuple(f"a {colour} {{}} {way}" for colour in COLOURS
                             for way in ("moving left", "moving right", "moving up", "moving down",
                                         "growing", "not moving")), ()),
    "video_motion": (4, tuple(f"a {colour} {digit} {{}}" for colour in COLOURS
                              for digit in DIGITS),
                     tuple(WORDINGS[name] for name in CLASSES["video_motion"])),
}


def get_config():
    config = demo.get_config()
    config.data.root = f"{demo.RUN}/tasks"
    config.evals = ConfigDict()
    for family, (frames, templates, wordings) in PROMPTS.items():
        classes = CLASSES[family]

        options = {
            "zero_shot": dict(classes=classes, templates=templates, wordings=wordings),
            "knn": dict(classes=classes, reference=f"{family}_train"),
        }
        for task, own in options.items():
            config.evals[f"{family}_{task}"] = common.evaluation(
                task, f"{family}_test", 64, f"{family}_validation", f"{family}_{task}", own,
                frames=frames, image_size=config.model.image_size)
    return config
