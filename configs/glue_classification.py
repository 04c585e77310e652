"""GLUE: `:DATASET,SIZE`, by default `cola,large`.

    python -m data.prepare glue_cola --raw=GLUE --out=prepared
    python train.py --config=configs/glue_classification.py:cola,large --workdir=runs/cola \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/cola

The same for sst2, mrpc, stsb, qqp, mnli, qnli and rte; SIZE is tiny, base or large. Split
`validation` (MNLI: `validation_matched` and `validation_mismatched`), which the field reports, for
the labels of `test` are hidden; do not tune on it. Figures: Matthews (CoLA), accuracy and F1 (MRPC,
QQP), Pearson and Spearman (STS-B), else accuracy. No figure of the paper at hand. Prepared by TFDS,
`--config.data.root=DIR/glue/cola` reads the same. Recipe: that of BERT; 10 epochs of small sets
are a guess.
"""

from configs import common, recipe

SAME = ("not_entailment", "entailment")
# By dataset: classes, whether texts come in pairs, records of the training split.
DATASETS = {
    "cola": (("unacceptable", "acceptable"), False, 8_551),
    "sst2": (("negative", "positive"), False, 67_349),
    "mrpc": (("not_equivalent", "equivalent"), True, 3_668),
    "stsb": ("score", True, 5_749),
    "qqp": (("not_duplicate", "duplicate"), True, 363_849),
    "mnli": (("entailment", "neutral", "contradiction"), True, 392_702),
    "qnli": (SAME, True, 104_743),
    "rte": (SAME, True, 2_490),
}
BATCH = 32


def get_config(options: str = "cola,large"):
    dataset, size = recipe.choose(options, DATASETS)
    classes, pair, records = DATASETS[dataset]
    config = recipe.start(size, f"glue_{dataset}", new=("heads/classify",))
    config.model.max_positions = max(config.model.max_positions, 128)  # of tiny
    config.task = common.task("classification", inputs="text", classes=classes)
    texts = dict(text_length=128, text_pair=pair)
    config.data.streams.text = common.stream("train", BATCH, **texts)
    recipe.pace(config, records, BATCH, epochs=3 if records > 10_000 else 10)
    for ending in ("_matched", "_mismatched") if dataset == "mnli" else ("",):
        split = f"validation{ending}"
        recipe.evaluate(config, f"{dataset}{ending}", split, split, batch=128,
                        kind=f"text{ending}", **texts)
    return config
