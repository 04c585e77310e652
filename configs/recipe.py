"""What fine-tuning configs share: where their data are, the released recipe, evaluations.

`PREPARED` is the `--out` of `python -m data.prepare`; `vocab.txt` in it is BERT's, uncased. The
released recipe of augmentation and learning rates is what a config has that does not say otherwise.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common

PREPARED = "prepared"
AUGMENTED = dict(crop_area=(0.5, 1.0), flip=True, rand_augment=(2, 5))
SIZES = ("tiny", "base", "large")


def start(size: str, dataset: str, new: tuple[str, ...] = ()) -> ConfigDict:
    """A config of a prepared dataset; `new` are the heads that a pretrained model lacks."""
    config = common.base(size)
    config.model.update(dict(vocab_size=30_522, dropout=0.1))
    config.data.root = f"{PREPARED}/{dataset}"
    config.data.tokenizer = f"{PREPARED}/vocab.txt"
    config.allow_new = new
    return config


def pace(config: ConfigDict, examples: int, batch: int, epochs: float, rate: float = 2e-5,
         vision_rate: float = 2e-6) -> None:
    """The optimizer's steps and rates: a short warm-up, and a cosine down to 1e-6."""
    steps = int(epochs * examples) // batch
    config.optimizer.update(dict(
        steps=steps, learning_rate=rate, vision_learning_rate=vision_rate,
        final_learning_rate=1e-6, warmup_steps=steps // 100, weight_decay=0.02))


def evaluate(config: ConfigDict, name: str, split: str, validation: str, batch: int = 32,
             kind: str = "", **examples: Any) -> None:
    """Adds an evaluation of the config's own task on a split, with the stream's options."""
    config.evals[name] = common.evaluation(
        config.task.name, split, batch, validation, kind, common.named(config.task), **examples)


def choose(options: str, datasets: dict[str, Any]) -> tuple[str, str]:
    """The dataset and the size of "DATASET,SIZE", or of one of them; by default first and large.

    Raises:
      ValueError: there is no such dataset.
    """
    dataset, _, size = options.partition(",")
    if dataset in SIZES and not size:
        dataset, size = "", dataset
    dataset = dataset or next(iter(datasets))
    if dataset not in datasets:
        raise ValueError(f"dataset {dataset!r}: expected one of {', '.join(datasets)}")
    return dataset, size or "large"
