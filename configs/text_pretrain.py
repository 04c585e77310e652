"""Pretraining on text alone: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare text_folder --raw=CORPUS --out=prepared
    python train.py --config=configs/text_pretrain.py:large --workdir=runs/text_pretrain \
        --config.init_from=PRETRAINED

CORPUS holds plain text, a document or a sentence a line: `train/*.txt`, and `val/*.txt` if there is
any; or `*.txt` alone to train on. Masked and prefix language modelling through the text encoder,
the universal layers and the decoder; there is no vision and no fusion. The paper pretrains on
WikiCorpus and a web corpus together with images and videos; it has no figure for text alone. Rates
are those of pretraining, steps are a guess.
"""

from configs import common, recipe

BATCH = 1_024


def get_config(size: str = "large"):
    config = recipe.start(size, "text_folder", new=("heads/mlm",))
    config.model.max_positions = max(config.model.max_positions, 128)  # of tiny
    config.task = common.task("pretrain", inputs="text", objectives=dict(
        vtc=0.0, vtm=0.0, mlm=1.0, prefix_lm=1.0, instruct=0.0))
    config.data.streams.text = common.stream("train", BATCH, text_length=128)
    rate = 5e-5 if size == "large" else 1e-4
    config.optimizer.update(dict(steps=100_000, warmup_steps=5_000, learning_rate=rate))
    return config
