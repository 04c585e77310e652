"""The moving-digit corpus: scenes of real handwriting, their texts, and labelled tasks."""
