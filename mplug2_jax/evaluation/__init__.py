"""A config's evaluations: run, their records, and the page that shows them."""

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

__all__ = ["Evaluation", "Records", "Section", "best_first", "build", "choose", "create_params",
           "noted", "run", "summary", "write_records", "write_report"]
