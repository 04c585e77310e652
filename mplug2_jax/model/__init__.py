"""The model of the paper's Figure 2, a file a module; `mplug2.py` composes them."""
