"""What is wrong with checkpoints."""

from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint that is not there or does not fit; the message names what and where."""


class Damaged(CheckpointError):
    """A checkpoint that is not as it was written.

    Args:
      folder: of the checkpoint.
      reason: names the file or the array.
    """

    def __init__(self, folder: Path, reason: str):
        super().__init__(f"{folder} is damaged: {reason}")
        self.reason = reason
