"""A task of one's own: how many digits a scene has, each answer weighed by how rare it is."""

import dataclasses

import jax.numpy as jnp

from mplug2_jax.contracts.options import option
from mplug2_jax.metrics.scores import mean
from mplug2_jax.tasks.base import Figure
from mplug2_jax.tasks.base.generation import LANGUAGE, Writing, WritingOptions

COUNTS = {"one": 1.0, "two": 2.0}  # answers


@dataclasses.dataclass(frozen=True)
class Options(WritingOptions):
    """The `task` section."""

    balance: float = option(0.5, "power of an answer's rarity that its examples are weighed by")


class Counting(Writing):
    """Generates a number word. Its state: how often each answer has been seen, float32 `[2]`."""

    Options = Options
    card = "Says how many digits a scene has. Rare answers weigh more. Not of the paper."
    fields = ("prompt", "target")
    expansion = "question"
    figures = (Figure("{kind}_count_accuracy", "share of scenes counted rightly", headline=True),
               Figure("{kind}_count_error", "mean distance to the true count", 0.0, 2.0, "lower"),
               *LANGUAGE)
    best_by = "{kind}_count_accuracy"

    def init_state(self, params):
        return {"seen": jnp.ones(len(COUNTS))}

    def answers(self, batch):
        """Which of `COUNTS` each target begins with, bool `[B, 2]`."""
        first = jnp.array([self.tokenizer.encode(word)[0] for word in COUNTS])
        return (batch["target"][:, 1:2] == first) & batch["example_mask"][:, None]

    def shares(self, batch):
        share = super().shares(batch)["share"] * batch["rarity"][:, None]  # [B, L - 1]
        return {"share": share / jnp.maximum(share.sum(), 1e-6)}

    def loss(self, params, batch, rng, task_state=None, step=0):
        seen = jnp.ones(len(COUNTS)) if task_state is None else task_state["seen"]
        rarity = (seen.sum() / seen) ** self.options.balance
        counts = {name: self.answers(rows) for name, rows in batch.items()}
        weighed = {name: rows | {"rarity": counts[name] @ rarity} for name, rows in batch.items()}
        value, (metrics, _) = super().loss(params, weighed, rng)
        return value, (metrics, sum(count.sum(axis=0) for count in counts.values()))

    def next_state(self, task_state, params, carry):
        return {"seen": task_state["seen"] + carry}

    def record(self, output, annotation):
        return {"prediction": self.text(output),
                "answer": annotation["questions"][int(output["item"])]["answer"]}

    def score(self, records, kind):
        errors = [abs(COUNTS.get(r["prediction"], 0.0) - COUNTS[r["answer"]]) for r in records]
        return {f"{kind}_count_accuracy": mean([float(not error) for error in errors]),
                f"{kind}_count_error": mean(errors)}
