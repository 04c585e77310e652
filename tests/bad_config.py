"""A small training in which some steps have no numbers."""

import stops_config

from configs import common


def get_config():
    config = stops_config.get_config()
    objectives = config.task.objectives.to_dict()
    config.task = common.task("bad_numbers", bad=(3, *range(6, 20)))
    config.task.objectives.update(objectives)
    config.guard.max_skipped_steps = 3
    config.checkpoint_every, config.keep_checkpoints = 2, 10
    return config
