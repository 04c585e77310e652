"""The planner: what it reads of a program's text, and real compilations for a TPU topology."""

import dataclasses
import functools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from marks import needs_libtpu

from configs import checks, instructions, pretrain
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import HEADS, MODULES, build, init_params
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import AXES
from mplug2_jax.planning.chips import CHIPS, GIB
from mplug2_jax.planning.hlo import Program
from mplug2_jax.planning.plan import DoesNotFit, Plan, out_of_memory, with_batch
from mplug2_jax.planning.search import search
from mplug2_jax.planning.topology import parse_topology

ROOT = Path(__file__).parents[2]

def plan_of(mesh, **fields):
    """A plan for v5e, whose figures are 1 where they are not given."""
    ones = {field.name: 1 for field in dataclasses.fields(Plan)}
    empty = dict(collectives={}, axes={}, launches={}, dcn=0, text="", batches={})
    return Plan(**(ones | empty | dict(chip=CHIPS["v5e"], mesh=mesh) | fields))


def test_the_message_of_a_program_that_does_not_fit():
    error = out_of_memory(
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.\n\n"
        "  Largest program allocations in hbm:\n\n"
        '  1. Size: 8.00G\n     Operator: op_name="jit(step)/dot_general" source_file="x.py"\n'
        "     Shape: f32[65536,32768]{1,0:T(8,128)}\n     Unpadded size: 8.00G\n"
        "     XLA label: fusion.1 = fusion(a)\n     ==========================\n\n"
        "  2. Size: 512.00M\n     Shape: bf16[64,4194304]{1,0}\n"
        "     XLA label: copy.1 = copy(a)\n     ==========================\n")
    assert isinstance(error, DoesNotFit)
    assert str(error).splitlines() == [
        "does not fit: 20.50 GiB of 15.75 GiB HBM a device, 4.75 GiB too much; the largest "
        "buffers:",
        "  8.00 GiB  f32[65536,32768]  jit(step)/dot_general",
        "  0.50 GiB  bf16[64,4194304]  copy.1 = copy(a)"]
    far = out_of_memory("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
                        "for HLO temporaries (831.58G) exceeds available HBM (15.75G).")
    assert isinstance(far, DoesNotFit)
    assert str(far) == ("does not fit: 831.58 GiB of 15.75 GiB HBM a device, 815.83 GiB too much; "
                        "the compiler names no buffers of so much")
    assert not isinstance(out_of_memory("INTERNAL: something else"), DoesNotFit)


@pytest.mark.parametrize("largest, lightest", [(512, "none"), (64, "dots_no_batch"), (32, "full")])
def test_search_finds_the_largest_batch_then_the_lightest_remat(largest, lightest):
    order, calls = ["full", "dots_no_batch", "none"], []

    def compiled(config):
        batch, policy = config.data.streams.image.batch_size, config.model.remat.vision
        calls.append((config.mesh.tensor, policy, batch))
        assert len(set(config.model.remat.to_dict().values())) == 1
        if batch > 64 * config.mesh.tensor or (
                batch > largest and order.index(policy) > order.index(lightest)):
            raise DoesNotFit(20 * GIB, 16 * GIB, [])
        seconds = {"full": 3.0, "dots_no_batch": 2.0, "none": 1.0}[policy]
        return plan_of({"fsdp": 16}, collectives={
            "all-gather": seconds * CHIPS["v5e"].ici_bandwidth})

    config, plan = search(pretrain.get_config("large,image"), compiled, 16, start=32)
    assert config.data.streams.image.batch_size == 256  # the largest, on tensor 4
    assert config.mesh.tensor == 4
    expected = "none" if largest >= 256 else lightest
    assert config.model.remat.vision == expected
    assert plan.bounds["interconnect"] == {"full": 3.0, "dots_no_batch": 2.0, "none": 1.0}[expected]
    assert len(calls) == len(set(calls)) <= 9


def test_the_first_batch_that_does_not_fit_is_an_error():
    def compiled(config):
        raise DoesNotFit(20 * GIB, 16 * GIB, [])

    with pytest.raises(DoesNotFit):
        search(pretrain.get_config("tiny,image"), compiled, 16, start=32)


def test_wrong_topologies_and_batches_are_named():
    found = parse_topology("2xv5p:8x8x8")
    assert (found.chip, found.slices, found.size, found.key) == (CHIPS["v5p"], 2, 1024, "v5p")
    assert parse_topology("h100:8").chip.is_gpu and parse_topology("v5p:4x8x8_twisted").twisted
    for wrong in ("v5e", "v9:4x4", "v5e:4xx", "v5e:0x4", "0xv5e:4x4", "h100:2x4", "h100:0", "h100"):
        with pytest.raises(ConfigError, match=f"--topology={wrong}: expected CHIP:AxB"):
            parse_topology(wrong)
    for wrong in ("2xv4:4x4x4", "2xh100:8"):
        with pytest.raises(ConfigError, match="the network between several .* is not known"):
            parse_topology(wrong)
    with pytest.raises(ConfigError, match="--global_batch=100: stream video has 512"):
        with_batch(pretrain.get_config("tiny,uninstructed"), 100)
    batches = with_batch(pretrain.get_config("tiny"), 32_768).data.streams
    assert {name: stream.batch_size for name, stream in batches.items()} == {
        "image": 32_768, "video": 4_096, "text": 32_768, "image_instruct": 4_096,
        "video_instruct": 2_048, "text_instruct": 4_096}


@pytest.mark.parametrize("size", ["tiny", "base", "large"])
@pytest.mark.parametrize("streams", pretrain.STREAMS)
def test_the_pretraining_configs_are_valid(size, streams):
    config = pretrain.get_config(f"{size},{streams}")
    assert config == pretrain.get_config(f"{streams},{size}")
    model = checks.validate(config).model
    assert set(config.data.streams) == set(pretrain.STREAMS[streams])
    assert model.scan or size == "tiny"
    for stream in config.data.streams.values():
        assert math.isclose(sum(source.weight for source in stream.split.values()), 1)
    assert config.task.momentum.teacher == (len(config.data.streams) > 1)
    asked = {name for name, stream in config.data.streams.items() if "target_length" in stream}
    assert asked == (set(instructions.SOURCES) if streams == "joint" else set())
    for wrong, said in ((f"{size},{size}", "both a size"), ("image,video", "both a streams"),
                        ("paper,other", "'other' of 'paper,other': expected a size")):
        with pytest.raises(ValueError, match=said):
            pretrain.get_config(wrong)


def test_instructions_ask_everything_in_several_wordings():
    asked = {}
    for name in instructions.SOURCES:
        for source in instructions.sources(name).values():
            assert len(set(source["instruction"])) >= 3 and source["instruction"][0]
            asked.setdefault(name, set()).add(source["ask"])
    every = {"caption", "question", "class"}
    assert asked == {"image_instruct": every, "video_instruct": every, "text_instruct": {"class"}}


def test_remat_is_chosen_for_each_module():
    config = pretrain.get_config("base").model
    config.remat.vision = "none"
    model = ModelConfig.from_mapping(config)
    assert (model.remat.vision, model.remat.text) == ("none", "full")
    config.remat.text = "some"
    with pytest.raises(ConfigError, match="model.remat.text = 'some': expected one of none, full"):
        ModelConfig.from_mapping(config)


# A small model whose layers are scanned, compiled for 16 chips by the command itself.
# Encoders alone, for each of its parts is half a minute of a processor.
SMALL = ["--config.model.scan=True", "--config.model.vision_layers=5",
         "--config.model.text_layers=5", "--config.model.vocab_size=2048",
         *(f"--config.task.objectives.{name}=0" for name in ("mlm", "prefix_lm", "vtm"))]


@functools.cache
def planned(*flags):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, "-m", "mplug2_jax.aot", "--config=configs/pretrain.py:tiny,image",
         "--topology=v5e:4x4", *SMALL, *flags],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("aot") / "step.txt"
    done = planned("--global_batch=256", f"--text={path}")
    assert done.returncode == 0, done.stderr
    return done.stdout, Program(path.read_text())


@needs_libtpu
def test_the_plan_of_a_run_that_fits(program):
    out, parsed = program
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines())
    peak, limit, arguments, temporaries, _ = map(float, re.findall(r"([\d.]+) GiB",
                                                                   rows["HBM a device"]))
    assert limit == 15.75 and 0 <= arguments < peak < limit and 0 < temporaries < limit
    assert rows["devices"] == "16 x TPU v5e, mesh data 1 x fsdp 16 x tensor 1"
    assert rows["examples a step"] == "image 256"
    # No remat here; of the first layers' inputs the backward pass needs no gradients.
    executed, counted = (float(rows[f"{name} FLOPs a step"].split()[0])
                         for name in ("executed", "model"))
    assert 0.98 * counted < executed < counted and counted > 1e11
    assert "all-gather" in rows["collectives a device"]
    assert re.match(r"0\.\d+ s, by (compute|memory|interconnect): ", rows["step time at least"])


@needs_libtpu
def test_no_parameters_of_several_layers_are_gathered_at_once(program):
    """Under a scan each layer's weights are gathered where they are used, inside the loop."""
    config = pretrain.get_config("tiny").model
    config.update(dict(scan=True, vocab_size=2048, vision_layers=5, text_layers=5))
    model = build(ModelConfig.from_mapping(config), ("vision", "text", "universal"), ("vtc",))
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    stacked = [math.prod(x.shape) for path, x in jax.tree_util.tree_leaves_with_path(shapes)
               if re.search(r"layers/layer|blocks/layer", sharding.path_name(path))
               and x.ndim > 2]
    gathers = [c for c in program[1].collectives() if c.kind == "all-gather"]
    inside = [c for c in gathers if c.times % 5 == 0]
    assert inside
    everything = 2 * sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))  # in bfloat16
    assert max(c.size for c in gathers) < everything / 4
    for elements in stacked:
        assert all(c.size not in (2 * elements, 4 * elements) for c in gathers)


@needs_libtpu
def test_too_large_a_batch_is_told_with_the_amount_and_the_largest_buffers():
    done = planned(f"--global_batch={2 ** 20}")
    assert done.returncode == 1, done.stderr
    first, *buffers = done.stdout.splitlines()
    used, limit, excess = map(float, re.findall(r"([\d.]+) GiB", first))
    assert limit == 15.75 and excess == pytest.approx(used - limit, abs=0.02) and excess > 0
    assert len(buffers) == (0 if "names no buffers" in first else 3)
    for line in buffers:
        assert re.match(r"  [\d.]+ GiB  \w+\[[\d,]+\]  \S", line)


@needs_libtpu
def test_every_chip_has_a_mesh_of_one_device_a_chip():
    """In a process of its own: what libtpu is told of this machine holds for all of it."""
    code = ("from mplug2_jax.planning.topology import devices_of, parse_topology\n"
            "from mplug2_jax.parallel.mesh import make_mesh\n"
            "for topology in ('v4:2x2x1', 'v5p:2x2x1', 'v5e:2x2', 'v6e:2x2'):\n"
            "    print(make_mesh(1, 2, 2, devices_of(parse_topology(topology))).size)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    assert done.stdout.split() == ["4"] * 4


TWO_SLICES = """
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from mplug2_jax.parallel.mesh import batch_sharding, make_mesh
from mplug2_jax.planning.hlo import Program
from mplug2_jax.planning.topology import devices_of, parse_topology

jax.config.update("jax_platforms", "cpu")
mesh = make_mesh(4, 2, 1, devices_of(parse_topology("2xv5e:2x2")))
for number in (0, 1):
    assert {one.slice_index for one in mesh.devices[2 * number:][:2].flat} == {number}
where = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
weights = jax.ShapeDtypeStruct((2, 512, 512), jnp.float32, sharding=where)
x = jax.ShapeDtypeStruct((64, 512), jnp.float32, sharding=batch_sharding(mesh))

def loss(weights, x):
    return jnp.square(jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]).mean()

with jax.set_mesh(mesh):
    step = jax.jit(jax.grad(loss), out_shardings=where)
    for one in Program(step.lower(weights, x).compile().as_text()).collectives():
        print(one.kind, one.size * one.times, one.axes({"data": 2, "fsdp": 2, "tensor": 1}))
"""


@needs_libtpu
@pytest.mark.slow
def test_between_slices_each_chip_sends_its_part_of_the_gradient_once():
    done = subprocess.run([sys.executable, "-c", TWO_SLICES], capture_output=True, text=True,
                          check=True, cwd=ROOT)
    found = [line.split() for line in done.stdout.splitlines()]
    gradient = 2 * 512 * 512 * 4
    between = [(kind, int(size)) for kind, size, axes in found if axes == "slices"]
    assert {kind for kind, _ in between} == {"all-reduce"}
    assert sum(size for _, size in between) == gradient // 4
    assert {axes for _, _, axes in found} > {"slices", "fsdp"}


@needs_libtpu
def test_a_slice_that_does_not_exist_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "mplug2_jax.aot", "--config=configs/pretrain.py:tiny",
         "--topology=v5e:3x5"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --topology=v5e:3x5: ")


def test_nearly_all_of_large_is_sharded():
    config = ModelConfig.from_mapping(pretrain.get_config("large").model)
    shapes = jax.eval_shape(lambda: init_params(build(config, MODULES, HEADS), jax.random.key(0)))
    mesh = jax.sharding.AbstractMesh((1, 256, 1), AXES)
    assert sharding.sharded_share(shapes, mesh) >= 0.995


def test_a_plan_names_what_bounds_it():
    chip = CHIPS["v5e"]
    plan = plan_of({"data": 1, "fsdp": 4, "tensor": 1}, executed_flops=8 * int(chip.flops),
                   model_flops=4 * int(chip.flops), collectives={"all-reduce": 3e12}, traffic=0)
    assert plan.bounds == {"compute": 2.0, "memory": 0.0,
                           "interconnect": pytest.approx(3e12 / chip.ici_bandwidth)}
    assert "by interconnect" in plan.table()
    faster = dataclasses.replace(plan, collectives={})
    assert "by compute" in faster.table() and "MFU at most 50%" in faster.table()
    apart = dataclasses.replace(plan, dcn=100 * chip.dcn_bandwidth)
    assert apart.bound == "dcn" and apart.seconds == pytest.approx(100)
