"""`python -m mplug2_jax.aot`, short for `python -m mplug2_jax.planning aot`."""

from mplug2_jax.planning.aot import command

if __name__ == "__main__":
    command()
