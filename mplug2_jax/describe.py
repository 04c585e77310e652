"""`python -m mplug2_jax.describe`, short for `python -m mplug2_jax.planning describe`."""

from mplug2_jax.planning.describe import command

if __name__ == "__main__":
    command()
