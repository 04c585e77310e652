"""GLUE; words: a data set (`cola` if none is given), a size, a preset.

    python -m data.prepare glue_cola --raw=GLUE --out=prepared
    python train.py --config=configs/glue_classification.py:cola,large --workdir=runs/cola \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/cola --which=best

The same for sst2, mrpc, stsb, qqp, mnli, qnli and rte. Split `validation` (MNLI:
`validation_matched` and `validation_mismatched`), which the field reports, for the labels of `test`
are hidden; a part of `train` is held out to tune on. Figures: Matthews (CoLA), accuracy and F1
(MRPC, QQP), Pearson and Spearman (STS-B), else accuracy. No figure of the paper at hand. Prepared
by TFDS, `--config.data.root=DIR/glue/cola` reads the same.

Of `test`, eval.py writes what GLUE's server takes, `CoLA.tsv` and so on; of all sets together

    python -m mplug2_jax.metrics.submissions glue.zip runs/*/*.tsv --fill WNLI AX

makes the zip to upload. WNLI and the diagnostic set, which nothing is trained for, get one answer.
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
BEST = {"cola": "{kind}_class_matthews", "stsb": "{kind}_score_pearson"}
# What GLUE's server calls its files; `eval.py` writes them of the test splits.
FILES = {"cola": ("CoLA.tsv",), "sst2": ("SST-2.tsv",), "mrpc": ("MRPC.tsv",),
         "stsb": ("STS-B.tsv",), "qqp": ("QQP.tsv",), "mnli": ("MNLI-m.tsv", "MNLI-mm.tsv"),
         "qnli": ("QNLI.tsv",), "rte": ("RTE.tsv",)}
BATCH = 32
SOURCES = {
    "optimizer.learning_rate stream.batch_size stream.text_length":
        "BERT: README.md, learning_rate 2e-5, train_batch_size 32, max_seq_length 128",
    "optimizer.warmup_steps": "BERT: run_classifier.py, warmup_proportion 0.1",
    "epochs": "BERT: README.md, num_train_epochs 3; of less than 10,000 records RoBERTa's 10",
    "examples": "data: records of the training split, less those held out",
    "model.max_positions": "ours: tiny has fewer than the text needs",
}


def get_config(options: str = "cola,large"):
    said = recipe.words(options, dataset=DATASETS)
    dataset = said["dataset"]
    classes, pair, records = DATASETS[dataset]
    config = recipe.start(said, f"glue_{dataset}", new=("heads/classify",))
    config.model.max_positions = max(config.model.max_positions, 128)  # of tiny
    config.task = common.task("classification", inputs="text", classes=classes)
    texts = dict(text_length=128, text_pair=pair)
    config.data.streams.text = common.stream("train[rest]", BATCH, **texts)
    epochs, examples = 3 if records > 10_000 else 10, recipe.rest(records)
    recipe.pace(config, recipe.alike(examples), BATCH, epochs,
                warmup=epochs * examples // BATCH // 10)
    endings = ("_matched", "_mismatched") if dataset == "mnli" else ("",)
    for ending, file in zip(endings, FILES[dataset], strict=True):
        recipe.evaluate(config, f"{dataset}{ending}", f"validation{ending}", "train[held_out]",
                        batch=128, kind=f"text{ending}", best=BEST.get(dataset, ""), **texts)
        recipe.submit(config, f"{dataset}{ending}_test", f"{dataset}{ending}", f"test{ending}",
                      f"text_test{ending}", file)
    return config
