"""What is trained on changing meshes and at changing batch sizes: text, whose rows are told."""

import stops_config

from configs import common


def get_config():
    config = stops_config.get_config()
    objectives = config.task.objectives.to_dict()
    config.task = common.task("told_rows")
    config.task.objectives.update(objectives)
    return config
