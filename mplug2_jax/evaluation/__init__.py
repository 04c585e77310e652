"""A config's evaluations: run, their records, and the page that shows them."""

from mplug2_jax.evaluation.checks import check, check_classes
from mplug2_jax.evaluation.journal import Done, Journal, Speed
from mplug2_jax.evaluation.origin import Origin
from mplug2_jax.evaluation.records import best_first, choose, write_records
from mplug2_jax.evaluation.report import Section, write_report
from mplug2_jax.evaluation.run import (
    Evaluation,
    Records,
    build,
    create_params,
    noted,
    run,
    summary,
)
from mplug2_jax.evaluation.submission import Submission, submit
from mplug2_jax.evaluation.validation import Moment, Validation, distinct

__all__ = ["Done", "Evaluation", "Journal", "Moment", "Origin", "Records", "Section", "Speed",
           "Submission", "Validation", "best_first", "build", "check", "check_classes", "choose",
           "create_params", "distinct", "noted", "run", "submit", "summary", "write_records",
           "write_report"]
