"""The train state and the step that changes it, the optimizer, progress and the run's log."""
