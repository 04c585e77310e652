"""Pretraining on text alone; words: a size, a preset.

    python -m data.prepare text_folder --raw=CORPUS --out=prepared
    python train.py --config=configs/text_pretrain.py:large --workdir=runs/text_pretrain \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/text_pretrain

CORPUS holds plain text, a document or a sentence a line: `train/*.txt`, and `val/*.txt` if there is
any; or `*.txt` alone to train on. A part of `train` is held out to validate on. Masked and prefix
language modelling through the text encoder, the universal layers and the decoder; there is no
vision and no fusion. The paper pretrains on WikiCorpus and a web corpus together with images and
videos; it has no figure for text alone.
"""

from configs import common, pretrain, recipe

BATCH = 1_024
SOURCES = {
    "optimizer.learning_rate": pretrain.SOURCES[pretrain.RATE_KEYS],
    "optimizer.warmup_steps optimizer.clip_norm stream.text_length":
        "ours: that of `pretrain.py`",
    "examples epochs stream.batch_size eval_limit": "ours: a guess; a corpus may be of any size",
    "task.objectives.vtc task.objectives.vtm task.objectives.mlm task.objectives.prefix_lm "
    "task.objectives.instruct": "ours: those that text alone feeds",
    "model.max_positions": "ours: tiny has fewer than the text needs",
}


def get_config(options: str = "large"):
    said = recipe.words(options)
    config = recipe.start(said, "text_folder", new=("heads/mlm",))
    config.model.max_positions = max(config.model.max_positions, 128)  # of tiny
    config.task = common.task("pretrain", inputs="text", objectives=dict(
        vtc=0.0, vtm=0.0, mlm=1.0, prefix_lm=1.0, instruct=0.0))
    texts = dict(text_length=128)
    config.data.streams.text = common.stream("train[rest]", BATCH, **texts)
    rate, _ = pretrain.RATES[said["size"]]
    recipe.pace(config, recipe.alike(2_000 * BATCH), BATCH, epochs=50, rate=rate, vision_rate=rate,
                warmup=5_000)
    recipe.evaluate(config, "text_pretrain", "train[held_out]", "train[held_out]", batch=64,
                    kind="text", **texts)
    return config
