"""What wrong input raises, everywhere: each error is one line that says what, where and what to do.

They are here, below all rooms, for what raises one and what catches it often do not know each
other.
"""

from mplug2_jax.contracts import exits


class EndsRun(RuntimeError):
    """What ends a run in a line, with an exit code of its own."""

    code = exits.ERROR  # of `contracts.exits`
    alike = True  # whether all processes of the run raise it, at the same step


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key and what was expected."""


class DataError(ValueError):
    """The data cannot be used as configured; the message is one line that says what to do."""


class MediaError(ValueError):
    """An image or a video that cannot be read; the message is one line."""


class RecordError(ValueError):
    """One record cannot be used; `reason` is the class of problem that it is counted by."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
