"""What a query's best are ranked by once more: rules by name.

Figures by different rules are different figures: all but the default's say theirs in their names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

DUAL_SOFTMAX = "dual_softmax_"  # in front of its figures
DEFAULT = "similarity_and_odds"


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
