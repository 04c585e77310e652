"""Predictions for files, however many: what is loaded once, and jobs in parts that go on."""

from mplug2_jax.inference.jobs import Job, each, spread, work
from mplug2_jax.inference.parts import cut, divide
from mplug2_jax.inference.predictor import COMMANDS, Kind, Predictor, Row, Spec
from mplug2_jax.inference.ranking import rank
from mplug2_jax.inference.specs import Given, make_spec, settings_of
from mplug2_jax.inference.written import Lines, Tables, said

__all__ = ["COMMANDS", "Given", "Job", "Kind", "Lines", "Predictor", "Row", "Spec", "Tables", "cut",
           "divide", "each", "make_spec", "rank", "said", "settings_of", "spread", "work"]
