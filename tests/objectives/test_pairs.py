"""The losses of pairs compare the pairs' own features, whatever else of them is read in a pass."""

import jax
import numpy as np
import pytest
import small

from mplug2_jax.objectives.contrastive import contrastive

OBJECTIVES = dict(vtc=1.0, vtm=0.0, mlm=1.0, prefix_lm=1.0, instruct=1.0)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("others", [False, True])
def test_contrast_is_of_each_medium_and_its_own_text(others, accumulation):
    """With other versions of the text beside it and without, against a pass for each alone."""
    weights = OBJECTIVES if others else OBJECTIVES | dict(mlm=0.0, prefix_lm=0.0, instruct=0.0)
    task = small.task("pretrain", objectives=weights, accumulation=accumulation)
    params, batch = small.params_of(task.model), small.pairs(padding=1)
    rng = np.random.default_rng(0)
    for field in ("prompt", "target"):
        batch[field], batch[f"{field}_mask"] = small.texts(rng, len(batch["pair_id"]), 8)

    @jax.jit
    def alone(params):
        text = task.call(params, "encode_text", batch["text"], batch["text_mask"])
        visual = task.call(params, "encode_visual", batch["video"])
        return contrastive(
            task.call(params, "contrastive", visual, "visual"),
            task.call(params, "contrastive", text, "text"), task.call(params, "temperature"),
            batch["pair_id"], batch["example_mask"])

    _, (metrics, _) = jax.jit(task.loss)(params, {"s": batch}, jax.random.key(0))
    value, hits = alone(params)
    np.testing.assert_allclose(metrics["s/vtc"], value, rtol=1e-5)
    for name, hit in hits.items():
        np.testing.assert_allclose(metrics[f"s/{name}"], hit, rtol=1e-5)
