"""What is wrong with checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint that is not there or does not fit; the message names what and where."""


class Damaged(CheckpointError):
    """A checkpoint that is not as it was written; the message names the file or the array."""
