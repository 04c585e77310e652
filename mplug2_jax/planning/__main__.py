"""What a run takes, before it runs.

    python -m mplug2_jax.planning describe --config=CONFIG    # modules, shapes, FLOPs, memory
    python -m mplug2_jax.planning aot --config=CONFIG --topology=v5e:16x16    # compiled for chips
    python -m mplug2_jax.planning suggest --config=CONFIG --hardware=v5e:4x4    # a recipe that fits
    python -m mplug2_jax.planning goodput --config=CONFIG --step_seconds=0.6    # with failures
"""

import importlib
import sys

COMMANDS = ("describe", "aot", "suggest", "goodput")


def main() -> None:
    """Runs the command that comes first; what follows are its flags."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        given = sys.argv[1] if len(sys.argv) > 1 else "none"
        print(f"error: expected a command, {', '.join(COMMANDS[:-1])} or {COMMANDS[-1]}; got "
              f"{given}", file=sys.stderr)
        raise SystemExit(2)
    importlib.import_module(f"mplug2_jax.planning.{sys.argv.pop(1)}").command()


if __name__ == "__main__":
    main()
