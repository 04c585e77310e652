"""mPLUG-2 in JAX: modular text, image and video modules with shared universal layers."""

__version__ = "0.1.0"
