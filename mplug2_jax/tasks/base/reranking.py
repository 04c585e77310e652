"""What a query's best are ranked by once more: rules by name.

Figures by different rules are different figures: all but the default's say theirs in their names.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mplug2_jax.tasks.base.figures import Figure

DUAL_SOFTMAX = "dual_softmax_"  # in front of its figures
DEFAULT = "similarity_and_odds"
WAYS = (("text_to_{kind}", "texts"), ("{kind}_to_text", "clips or images"))
DUAL = "dual encoder alone"
SAME = "same_"  # in front of figures


class Rule(NamedTuple):
    """What the best of a query are ranked by.

    Attributes:
      meaning: how a person reads it.
      matching: of the logits `wrong [P]` and `right [P]` of pairs and the temperature, the part of
        the score that matching gives, `[P]`.
      similarity: whether the pair's similarity is added.
    """

    meaning: str
    matching: Callable[[Any, Any, Any], Any]
    similarity: bool


RULES = {
    DEFAULT: Rule("similarity plus temperature times matching's log-odds",
                  lambda wrong, right, temperature: (right - wrong) * temperature, True),
    # In the order of the probability, but where that is 1 to float32's last digit: no ties.
    "probability": Rule("the probability of a match alone",
                        lambda wrong, right, temperature: right - wrong, False),
    "logit": Rule("the logit of a match alone, as ALBEF's published code does",
                  lambda wrong, right, temperature: right, False),
    "similarity_and_logit": Rule("similarity plus the logit of a match, as BLIP's published code "
                                 "does", lambda wrong, right, temperature: right, True),
}


def prefix_of(rule: str) -> str:
    """What stands in front of the names of a rule's figures."""
    return "" if rule == DEFAULT else f"by_{rule}_"


def figures_by(prefix: str, by: str, ways: Sequence[tuple[str, str]] = WAYS) -> Iterator[Figure]:
    """Figures whose names begin with `prefix`, of (name, what is asked) each way."""
    for way, what in ways:
        yield Figure(f"{prefix}{way}_r1", f"share of {what} whose match comes first; {by}",
                     headline=True)
        yield Figure(f"{prefix}{way}_r*", f"share of {what} with a match among the first so many; "
                     f"{by}")
        yield Figure(f"{prefix}{way}_m*_rank", f"rank of the first match of {what}; {by}", 1.0,
                     float("inf"), "lower")


# All figures of ranking, by whatever rule.
RANKED = (
    *figures_by("", f"the best reranked by {RULES[DEFAULT].meaning}"),
    *figures_by("dual_", DUAL),
    *(figure for name, rule in RULES.items() if name != DEFAULT for figure in figures_by(
        prefix_of(name), f"the best reranked by {rule.meaning}", (("*", "queries"),))),
    *figures_by(DUAL_SOFTMAX, "with dual softmax over all test queries, else as the name "
                f"without {DUAL_SOFTMAX!r} says", (("*", "queries"),)),
    *figures_by(SAME, "with what shows the same (`task.same`) counted right, else as the name "
                f"without {SAME!r} says", (("*", "queries"),)),
    Figure("*_ceiling", "r1 of who knows all but which of those that show the same is meant",
           better=""),
)
