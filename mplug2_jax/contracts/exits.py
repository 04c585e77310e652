"""How a command ends: every exit code there is, for what starts it again or does not.

One that a signal ended without a save has `by_signal`, as shells say it.
"""

DONE = 0
ERROR = 1
WRONG = 2
LOST = 3
STOPPED = 4
STUCK = 5
SKIPPED = 6
DIFFER = 7

MEANING = {
    DONE: "done",
    ERROR: "an error that nobody foresaw, with its trace",
    WRONG: "a wrong flag, config or datum, or what the machine refuses: one line",
    LOST: "another process of the run ended or was lost",
    STOPPED: "stopped by a signal; all that was done is saved",
    STUCK: "no step ended in time (the watchdog wrote what all threads did), or data hung",
    SKIPPED: "too many steps in a row changed nothing: no numbers, or spikes",
    DIFFER: "replicas of the parameters differ: a chip computes wrongly",
}
# What the same command, started again, may well end better than.
RESTART = (LOST, STOPPED, STUCK)


def by_signal(number: int) -> int:
    """The exit code of a process that a signal ended before it could save."""
    return 128 + number


def say(code: int) -> str:
    """A code in words."""
    return MEANING.get(code, f"ended by signal {code - 128} without a save" if code > 128
                       else f"exit code {code}")
