"""Run configurations; each file's docstring is the command that runs it."""
