"""A process of several that does nothing but wait; what it does wrong is the first argument."""

import json
import os
import sys
import time

from absl import flags

from mplug2_jax import launch
from mplug2_jax.parallel import hosts

FAULT = flags.DEFINE_enum("fault", "", ["", "raises", "bug"], "What goes wrong.")
COUNTS = flags.DEFINE_string("counts", "", "JSON of counts: their totals are printed.")


def main():
    os.write(1, b"met\n")  # at once: the other process may end this one between two writes
    if COUNTS.value:
        print(json.dumps([hosts.totals({}), hosts.totals(json.loads(COUNTS.value))]))
        return
    if FAULT.value == "raises":
        raise ValueError("a record that only this process reads")
    if FAULT.value == "bug":
        raise TypeError("nobody foresaw this")
    assert hosts.several()
    sys.stdin.read()  # until the test closes it
    time.sleep(0.1)


if __name__ == "__main__":
    launch.main(main, distributed=True)
