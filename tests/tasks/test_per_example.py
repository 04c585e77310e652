"""A task of one's own and its micro-batches: right without a thought, or refused in a line."""

import dataclasses
import textwrap

import jax
import pytest
import small

from configs import common
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.parallel.mesh import make_mesh

TINY = small.model(vision_layers=1, universal_layers=1)
OWN = '''
    """A task of somebody's own: brightness of a picture, or what becomes of it."""

    import dataclasses
    import jax
    import jax.numpy as jnp
    from mplug2_jax.objectives import losses
    from mplug2_jax.tasks.base import PerExample, Task, accumulation, modality


    @dataclasses.dataclass(frozen=True)
    class Options:
        modality: str = modality()
        accumulation: int = accumulation()


    class Own({base}):
        """Of the encoder alone."""

        Options = Options
        card = "A task. Not of the paper."

        @classmethod
        def composition(cls, options):
            return ("vision",), ()

        def each(self, params, rows):
            return jnp.square(self.encode_seen(params, rows).mean(axis=(1, 2)))

'''
RIGHT = """
    def part(self, name, params, rows, rng):
        value = self.each(params, rows) * rows["share"]
        return value, {"own": value}
"""
MEAN = """
    def part(self, name, params, rows, rng):
        value = self.each(params, rows).mean()
        return value, {"own": value}
"""
FIGURE = """
    def part(self, name, params, rows, rng):
        value = self.each(params, rows)
        return value * rows["share"], {"own": value.mean()}
"""
MASKED = """
    def part(self, name, params, rows, rng):
        value = self.each(params, rows) * losses.shares(rows["example_mask"])
        return value, {"own": value}
"""
OTHER_KEY = """
    def part(self, name, params, rows, rng):
        return rows["nothing"], {}
"""
WHOLE = """
    def loss(self, params, batch, rng, task_state=None, step=0):
        value = sum((self.each(params, rows) * losses.shares(rows["example_mask"])).sum()
                    for rows in batch.values())
        return value, ({"s/own": value}, None)
"""
AROUND = RIGHT + """
    def loss(self, params, batch, rng, task_state=None, step=0):
        value, (metrics, carry) = super().loss(params, batch, rng)
        return 2 * value, (metrics, carry)
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """Makes a task, of its body and the base, and of so many micro-batches."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(body, accumulation=2, base="PerExample"):
        name = f"own_{abs(hash((body, base, request.node.name)))}"
        (tmp_path / f"{name}.py").write_text(
            textwrap.dedent(OWN).format(base=base) + body)
        return tasks.make(common.task(name, accumulation=accumulation), TINY, small.tokenizer())

    return make


def traced(task):
    batch = {"s": small.pairs(8, 1, padding=1)}
    return jax.eval_shape(task.loss, small.params_of(task.model), batch, jax.random.key(0))


def check(task):
    stream = Stream(split="train", batch_size=8, frames=1, image_size=16)
    task.check_mesh({"s": stream}, make_mesh(1, 1, 1, jax.devices()[:1]))


@pytest.mark.parametrize("body", [RIGHT, AROUND])
def test_what_says_each_row_s_part_is_split(own, body):
    task, whole = own(body, 4), own(body, 1)
    check(task)
    params = small.params_of(task.model)
    batch = {"s": small.pairs(8, 1, padding=3)}
    (one, _), (four, _) = (jax.jit(made.loss)(params, batch, jax.random.key(0))
                           for made in (whole, task))
    assert float(one) == pytest.approx(float(four), rel=1e-5) and one > 0


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("body, message", [
    (MEAN, r"^Own.part: the loss has shape \(\), expected \(\d,\): what each row adds"),
    (FIGURE, r"^Own.part: own has shape \(\), expected \(\d,\): what each row adds"),
    (MASKED, "^Own.part: expected to weigh rows by `shares`; the `example_mask` of a micro-batch"),
])
def test_a_part_that_would_depend_on_the_split_is_refused(own, body, message, accumulation):
    with pytest.raises(TypeError, match=message):
        traced(own(body, accumulation))


def test_what_is_beside_a_text_s_loss_is_of_each_row(monkeypatch):
    """A sum would count once a row."""
    task = small.task("qa", TINY)
    monkeypatch.setattr(task, "beside", lambda logits, rows: (logits.sum(), {}))
    batch = {"s": small.pairs(8, 1)}
    batch["s"]["prompt"], batch["s"]["prompt_mask"] = batch["s"]["text"], batch["s"]["text_mask"]
    batch["s"]["target"], batch["s"]["target_mask"] = batch["s"]["text"], batch["s"]["text_mask"]
    with pytest.raises(TypeError, match=r"beside: the loss has shape \(\), expected \(8,\)"):
        jax.eval_shape(task.loss, small.params_of(task.model), batch, jax.random.key(0))


def test_other_errors_of_a_part_are_its_own(own):
    with pytest.raises(KeyError, match="nothing"):
        traced(own(OTHER_KEY))


@pytest.mark.parametrize("base", ["PerExample", "Task"])
def test_a_loss_that_takes_no_notice_of_its_option_is_refused(own, base):
    task = own(WHOLE, 2, base)
    with pytest.raises(ConfigError) as caught:
        check(task)
    assert str(caught.value).startswith(
        f"task.accumulation = 2: the loss of task {task.name!r} computes the batch whole all ")
    assert "\n" not in str(caught.value)
    check(own(WHOLE, 1, base))  # where nothing is asked of it


def test_too_few_micro_batches_are_named(own):
    with pytest.raises(ConfigError, match="^task.accumulation = 0: expected at least 1$"):
        own(RIGHT, 0)
    for name in tasks.names():
        found = tasks.load(name).Options
        if any(field.name == "accumulation" for field in dataclasses.fields(found)):
            with pytest.raises(ConfigError, match="^evals.x.task.accumulation = -1: expected at "):
                tasks.read({"name": name, "accumulation": -1}, "evals.x.task")
