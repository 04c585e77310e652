"""What is killed again and again: `steady_config.py`, with each step's rows in the log."""

import steady_config

from configs import common


def get_config():
    config = steady_config.get_config()
    objectives = config.task.objectives.to_dict()
    config.task = common.task("told_rows")
    config.task.objectives.update(objectives)
    return config
