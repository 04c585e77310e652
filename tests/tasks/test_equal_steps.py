"""One step of every task is the plain one: split, frozen, averaged and spread as it may be.

The reference is `jax.value_and_grad` of the whole batch on one device over all parameters; what is
frozen is left out of it, and AdamW, averages and queues are formulas of NumPy. Dropout is off: its
draws alone may depend on the split. `CASES=all` tries every combination (`make test-full`). The
tests else try every task whole and split, on one device and on eight, and of the other factors
every pair of two values; `make test-long` every form of each task.

Everything is float32, where sums of another order differ by about 1e-6; 1e-5 holds for losses,
figures and gradients. Adam makes steps of full size of the smallest gradients, rounding too. So the
moments are compared, and the parameters with what AdamW makes of these moments.
"""

import functools
import itertools
import os

import jax
import numpy as np
import optax
import pytest
import small
from commands import ROOT
from trees import assert_gradients_equal

from configs import common
from mplug2_jax import tasks
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.parallel.sharding import path_name, tree_shardings
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.training.optimizer import NO_DECAY, VISION, hold, make_optimizer, matching
from mplug2_jax.training.state import TrainState
from mplug2_jax.training.step import make_train_step

pytestmark = pytest.mark.slow
TINY = small.model(vision_layers=1, universal_layers=1, fusion_layers=1, decoder_layers=1)
ROWS, STEP, SEED = 16, 20, 5
OBJECTIVES = dict(vtc=1.0, vtm=0.5, mlm=1.0, prefix_lm=2.0, instruct=0.7)
TEACHER = dict(teacher=True, decay=0.9, alpha=0.4, ramp_steps=40, queue=True, queue_size=20)
CLASSES = ("a", "b", "c")

FORMS = {  # of every task with a loss: options, and what its streams have
    "pretrain": [  # `parallel/test_sharding.py` spreads and splits all objectives
        (dict(objectives=OBJECTIVES | dict(vtm=0.0, instruct=0.0), momentum=TEACHER),
         {"image": "video text", "text": "text"}),
        (dict(inputs="text", objectives=OBJECTIVES | dict(vtc=0.0, vtm=0.0)),
         {"text": "text prompt target"}),
        (dict(objectives=OBJECTIVES), {"video": "video text prompt target", "text": "text"})],
    "retrieval": [({}, {"s": "video text duplicates"}),
                  (dict(negative_block=8), {"s": "video text"})],
    "captioning": [(dict(memory="visual"), {"s": "video text"}),
                   (dict(memory="visual", samples=2), {"s": "video text"}),
                   (dict(memory="fused"), {"s": "video text prompt"})],
    "qa": [({}, {"s": "video prompt target"}),
           (dict(memory="prompt"), {"a": "video prompt target", "b": "video prompt target"})],
    "grounding": [(dict(location_bins=9), {"s": "video prompt box"})],
    "instructions": [(dict(location_bins=9), {"s": "video prompt target box"})],
    "classification": [
        (dict(classes=CLASSES, inputs="both", pool="mean"), {"s": "video text label"}),
        (dict(classes=CLASSES, mixup=0.8, cutmix=1.0, label_smoothing=0.1), {"s": "video label"}),
        (dict(classes="score", inputs="text"), {"s": "text score"}),
        (dict(classes=CLASSES, inputs="images"), {"s": "video text label"})],
    "counting": [(dict(balance=1.0), {"s": "video prompt target"})],  # docs/examples
}
ACCUMULATION = 1, 2, 4
FROZEN = {"nothing": (), "vision": ("^vision/",), "all but heads": ("^(?!heads/|decoder/head/)",)}
MESHES = {1: (1, 1, 1), 8: (2, 2, 2)}


def chosen():
    """Cases (task, form, accumulation, frozen, EMA, devices): all of them, or what is said above.
    """
    levels = ACCUMULATION, tuple(FROZEN), (False, True), tuple(MESHES)
    if os.environ.get("CASES") == "all":
        return [(name, form, *case) for name, forms in FORMS.items()
                for form in range(len(forms)) for case in itertools.product(*levels)]
    return [(name, 0, ACCUMULATION[a and 1 + t % 2], tuple(FROZEN)[(a + t // 3) % 3],
             bool((a + t // 2) % 2), tuple(MESHES)[(a + t + t // 2) % 2])
            for t, name in enumerate(FORMS) for a in range(2)]


def longer():
    """Cases of the other forms, whole and split in turn."""
    return [pytest.param(name, form, ACCUMULATION[(t + form) % 3], tuple(FROZEN)[(form + t) % 3],
                         bool(form % 2), tuple(MESHES)[(t + form) % 2], marks=pytest.mark.long)
            for t, (name, forms) in enumerate(FORMS.items()) for form in range(1, len(forms))
            if os.environ.get("CASES") != "all"]


def test_every_pair_of_factors_is_tried():
    cases = {(name, *case) for name, _, *case in chosen()}
    levels = tuple(FORMS), ACCUMULATION, tuple(FROZEN), (False, True), tuple(MESHES)
    pairs = set(itertools.combinations(range(len(levels)), 2))
    for i, j in pairs - {(0, 1), (0, 2)}:
        assert {(case[i], case[j]) for case in cases} == set(itertools.product(
            levels[i], levels[j])), (i, j)
    for name in FORMS:  # whole and split; of what may be frozen, two of three
        tried = [case for case in cases if case[0] == name]
        assert {case[1] > 1 for case in tried} == {False, True}
        assert len({case[2] for case in tried}) > 1
    assert len(chosen()) <= 16 or os.environ.get("CASES") == "all"


def test_every_task_with_a_loss_is_tried():
    evaluating = {"knn", "zero_shot"}  # of which `test_contract.py` says that they have none
    assert set(tasks.names()) == set(FORMS) - {"counting"} | evaluating


@pytest.fixture(scope="module", autouse=True)
def one_s_own():
    """`docs/examples/counting.py`, with words of the small vocabulary as answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs" / "examples")
        patch.setattr("counting.COUNTS", {"w1": 1.0, "w2": 2.0})
        yield


def make(name, form, accumulation):
    """The task, ready to train."""
    task = small.task(name, TINY, **FORMS[name][form][0], accumulation=accumulation)
    task.prepare(lambda: {"s": [["w1 w2 w3", "w1 w2"], ["w4 w5"], [], ["w1 w3 w7"]] * (ROWS // 4)})
    return task


def rows(fields, seed):
    """A stream's batch; the last rows only fill it."""
    rng = np.random.default_rng(seed)
    made = small.pairs(ROWS, 2, seed, padding=3)
    made["target"], made["target_mask"] = small.texts(rng, ROWS, 8)
    made["target"][:, 1] = np.where(rng.random(ROWS) < 0.3, *(
        small.tokenizer().encode(word)[0] for word in ("w1", "w2")))
    made["label"] = rng.integers(0, 3, ROWS).astype(np.int32)
    low, high = np.sort(rng.random((2, ROWS, 2)), axis=0)
    # Beside other targets every second row is asked for a box.
    asks = np.arange(ROWS)[:, None] % 2 == 0 if "target" in fields else True
    made["box"] = np.where(asks, np.concatenate([low, high], axis=1), 0).astype(np.float32)
    kept = {"pair_id", "example_mask", *fields.split()}
    kept |= {f"{field}_mask" for field in kept if f"{field}_mask" in made}
    if "score" in kept:
        made["score"] = rng.random(ROWS).astype(np.float32)
    if "duplicates" in kept:  # of other rows; a padding row's count for nothing
        for key in ("media_id", "text_id"):
            made[key] = np.repeat(rng.integers(1, 9, (ROWS, 1)), 2, axis=1).astype(np.int32)
            kept |= {key}
    return {{"score": "label"}.get(key, key): made[key] for key in made if key in kept}


def kept_across(task, params):
    """A state of the task as after some steps: a teacher that lags, a queue half full."""
    state, rng = jax.device_get(task.init_state(params)), np.random.default_rng(9)
    if "teacher" in state:
        state["teacher"] = small.params_of(task.model, seed=1)
    if "queue" in state:
        for side in ("visual", "text"):
            features = rng.standard_normal(state["queue"][side].shape)
            features /= np.linalg.norm(features, axis=1, keepdims=True)
            state["queue"][side] = features.astype(np.float32)
        size = len(state["queue"]["pair_id"])
        state["queue"] |= {"pair_id": np.arange(size, dtype=np.int32) + 5,
                           "example_mask": np.arange(size) < size // 2}
    if "seen" in state:
        state["seen"] = np.float32([3.0, 8.0])
    return state


def given(name, form):
    """Parameters, a batch, and what the task has kept."""
    task = make(name, form, 1)
    params = small.params_of(task.model)
    batch = {stream: rows(fields, seed)
             for seed, (stream, fields) in enumerate(FORMS[name][form][1].items())}
    return params, batch, kept_across(task, params)


@functools.cache
def plain(name, form):
    """The same; and loss, metrics, carry and the whole gradient."""
    params, batch, kept = given(name, form)
    key = jax.random.fold_in(jax.random.key(SEED), STEP)
    results = jax.jit(jax.value_and_grad(make(name, form, 1).loss, has_aux=True))(
        params, batch, key, kept, STEP)
    return params, batch, kept, jax.device_get(results)


def named(tree):
    """A tree's leaves in float64, by their paths."""
    return {path_name(path): np.asarray(x, np.float64)
            for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def norm(arrays):
    return np.sqrt(sum(np.square(x).sum() for x in arrays))


OPTIONS = dict(steps=100, warmup_steps=0, learning_rate=1e-2, vision_learning_rate=2e-3,
               weight_decay=0.1, clip_norm=0.5)


@pytest.mark.parametrize("name, form, accumulation, frozen, average, devices",
                         [*chosen(), *longer()])
def test_a_step_is_the_plain_one(name, form, accumulation, frozen, average, devices):
    params, batch, kept, ((value, (parts, carry)), gradient) = plain(name, form)
    task, hidden = make(name, form, accumulation), matching(FROZEN[frozen])
    options = common.base("tiny").optimizer
    options.update(OPTIONS | dict(frozen=FROZEN[frozen]))
    optimizer, _ = make_optimizer(options)
    mesh = make_mesh(*MESHES[devices], jax.devices()[:devices])
    ema = jax.tree_util.tree_map_with_path(
        lambda path, x: x if hidden.search(path_name(path)) else 1.1 * x, params)
    start = TrainState(np.int32(STEP), params, optimizer.init(params), kept,
                       ema if average else None)
    step = make_train_step(task, optimizer, start, mesh, SEED, FROZEN[frozen], 0.6)
    after, metrics = jax.device_get(step(
        jax.device_put(start, tree_shardings(start, mesh)), put_batch(batch, mesh)))

    before, grads = named(params), named(gradient)
    trained = {path: grads[path] for path in before if not hidden.search(path)}
    assert parts.get("s/reward", 1) > 0  # of drawn captions: there is something to compare
    assert trained and (frozen == "nothing" or len(trained) < len(before) or (
        frozen == "vision" and "vision" not in params))
    # Loss, figures and norms before clipping, of all and of each module.
    modules = {f"grad_norm/{module}": norm(x for path, x in trained.items()
                                           if path.startswith(f"{module}/")) for module in params}
    expected = parts | modules | {"loss": value, "grad_norm": norm(trained.values())}
    assert metrics.pop("tokens") == sum(
        (stream[key] & stream["example_mask"][:, None]).sum() for stream in batch.values()
        for key in ("text_mask", "prompt_mask", "target_mask") if key in stream)
    assert metrics.pop("skipped_steps") == metrics.pop("skipped_in_a_row") == 0
    assert metrics.keys() == expected.keys()
    for key, one in expected.items():
        np.testing.assert_allclose(metrics[key], one, rtol=1e-5, atol=1e-6, err_msg=key)
    # The optimizer's moments: of what is trained alone.
    moments = {key: named(optax.tree.get(after.opt_state, key)) for key in ("mu", "nu")}
    scale = min(1.0, options.clip_norm / norm(trained.values()))
    found = {path: x / (1 - options.b1) for path, x in moments["mu"].items()}
    assert_gradients_equal(found, {path: scale * x for path, x in trained.items()}, 1e-5)
    # Parameters: AdamW of these, and not a bit of what is frozen.
    new = named(after.params)
    for path, x in before.items():
        if path not in trained:
            np.testing.assert_array_equal(new[path], x, err_msg=path)
            continue
        np.testing.assert_allclose(moments["nu"][path], (1 - options.b2) * found[path] ** 2,
                                   rtol=1e-4, atol=1e-20, err_msg=path)
        rate = options.vision_learning_rate if VISION.search(path) else options.learning_rate
        change = found[path] / (np.abs(found[path]) + 1e-8)
        change += 0 if NO_DECAY.search(path) else options.weight_decay * x
        np.testing.assert_allclose(new[path] - x, -rate * change, rtol=1e-3, atol=2e-7,
                                   err_msg=path)
    # Averages: the run's own and the task's teacher, of what did not change the same to the bit.
    assert (after.ema is not None) == average and after.step == STEP + 1
    averages = [(ema, after.ema, 0.6)] if average else []
    if "teacher" in kept:
        averages.append((kept["teacher"], after.task_state["teacher"], TEACHER["decay"]))
    for old, now, decay in averages:
        old, now = named(old), named(now)
        for path, x in new.items():
            np.testing.assert_allclose(now[path], decay * old[path] + (1 - decay) * x, rtol=1e-5,
                                       atol=1e-6, err_msg=path)
            if np.array_equal(old[path], x):
                np.testing.assert_array_equal(now[path], x, err_msg=path)
    if "queue" in kept:
        for key, old in kept["queue"].items():
            new = [part.get(key, np.zeros((len(part["pair_id"]), 2))) for part in carry]
            newest = np.concatenate([*new, old])[:len(old)]
            np.testing.assert_allclose(after.task_state["queue"][key], newest, rtol=1e-5, atol=1e-6)
    if "seen" in kept:
        np.testing.assert_array_equal(after.task_state["seen"], kept["seen"] + carry)


COUNTED = [(name, form) for name, forms in FORMS.items() for form in range(len(forms))
           if os.environ.get("CASES") == "all" or (name, form) in (
               ("retrieval", 0), ("classification", 1))]


@pytest.mark.parametrize("name, form", COUNTED)
def test_splitting_computes_no_gradient_of_what_is_frozen(name, form):
    """Nothing is computed beside the unsplit step's but, of pairs, the trained encoders again."""
    params, batch, kept = given(name, form)

    def loss(params, accumulation, patterns=()):
        task = make(name, form, accumulation)
        return task.loss(hold(params, patterns), batch, jax.random.key(0), kept, STEP)[0]

    forward, more = count_flops(functools.partial(loss, accumulation=1), params), {}
    for frozen, patterns in FROZEN.items():
        whole, parts = (count_flops(jax.grad(functools.partial(
            loss, accumulation=split, patterns=patterns)), params) for split in (1, 4))
        more[frozen] = parts - whole
        assert frozen != "all but heads" or whole < 1.1 * forward  # the heads' alone
    assert more["all but heads"] == 0
    if name in ("pretrain", "retrieval"):
        assert 0 <= more["vision"] <= more["nothing"] <= forward
        assert (more["vision"] < more["nothing"]) == ("vision" in params)
    else:
        assert set(more.values()) == {0}
