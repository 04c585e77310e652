"""With what a checkpoint is asked, where the library has no config of the checkout to look at."""

import pytest
from ml_collections import ConfigDict

from configs import msrvtt_caption, msrvtt_qa
from mplug2_jax import launch, tasks
from mplug2_jax.inference import specs
from mplug2_jax.model.config import ModelConfig


@pytest.mark.parametrize("name, recipe", [("captioning", msrvtt_caption), ("qa", msrvtt_qa)])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_weights_of_sizes_alone_are_asked_by_the_release_s_recipe(name, recipe, kind):
    config = recipe.get_config()
    sizes = ConfigDict({"model": config.model.to_dict()})
    options, stream = specs.choose(sizes, ModelConfig.from_mapping(config.model), name, kind)
    assert options == launch.plain(config.task)
    assert tasks.read(options)[0].name == name
    assert (stream.image_size, stream.frames) == (config.model.image_size, 0)
