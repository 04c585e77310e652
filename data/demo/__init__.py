"""The moving-digit corpus: scenes of real handwriting, their texts, and labelled tasks."""

from data.demo.tasks import CLASSES
from data.demo.texts import COLOURS, DIGITS

__all__ = ["CLASSES", "COLOURS", "DIGITS"]
