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
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from marks import needs_libtpu

from configs import checks, instructions, pretrain
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import HEADS, MODULES, build, init_params
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import AXES, batch_sharding, make_mesh
from mplug2_jax.planning.chips import CHIPS, GIB, chip_of
from mplug2_jax.planning.hlo import Program
from mplug2_jax.planning.plan import DoesNotFit, Plan, out_of_memory, with_batch
from mplug2_jax.planning.search import search

ROOT = Path(__file__).parents[2]

TEXT = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add = f32[]{:T(128)} add(%a, %b)
}

%take (stack: bf16[5,16,64], i: s32[]) -> bf16[1,16,64] {
  %stack = bf16[5,16,64]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = bf16[1,16,64]{2,1,0} dynamic-slice(%stack, %i, %zero, %zero)
}

%body (state: (s32[], bf16[5,16,64])) -> (s32[], bf16[5,16,64]) {
  %state = (s32[], bf16[5,16,64]{2,1,0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  %w = bf16[5,16,64]{2,1,0} get-tuple-element(%state), index=1
  %layer = bf16[1,16,64]{2,1,0} fusion(%w, %n), kind=kLoop, calls=%take
  %gather-start = (bf16[1,16,64]{2,1,0}, bf16[1,64,64]{2,1,0:S(1)}) all-gather-start(%layer), GROUPS
  %gather = bf16[1,64,64]{2,1,0:S(1)} all-gather-done(%gather-start)
  ROOT %next = (s32[], bf16[5,16,64]{2,1,0}) tuple(%n, %w)
}

%condition (state: (s32[], bf16[5,16,64])) -> pred[] {
  %state.1 = (s32[], bf16[5,16,64]{2,1,0}) parameter(0)
  %n.1 = s32[] get-tuple-element(%state.1), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%n.1, %five), direction=LT
}

ENTRY %main (x: f32[1024], w: bf16[5,16,64]) -> f32[256] {
  %x = f32[1024]{0} parameter(0)
  %w.1 = bf16[5,16,64]{2,1,0} parameter(1)
  %zero.1 = s32[] constant(0)
  %start = (s32[], bf16[5,16,64]{2,1,0}) tuple(%zero.1, %w.1)
  %loop = (s32[], bf16[5,16,64]{2,1,0}) while(%start), condition=%condition, body=%body, TRIPS
  %all = f32[1024]{0} all-reduce(%x), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum
  %permuted = f32[1024]{0} collective-permute(%all), source_target_pairs={{0,1},{1,0}}
  ROOT %scattered = f32[256]{0} reduce-scatter(%permuted), replica_groups={{0,1,2,3}}, to_apply=%sum
}
""".replace("GROUPS", "replica_groups=[4,4]<=[16], dimensions={1}").replace(
    "TRIPS", 'backend_config={"known_trip_count":{"n":"5"}}')


@pytest.mark.parametrize("text", [TEXT, TEXT.split(", backend_config")[0] + TEXT.split('"5"}}')[1]],
                         ids=["known trips", "compared with"])
def test_collectives_of_a_text_as_counted_by_hand(text):
    moved = {}
    for collective in Program(text).collectives():
        moved[collective.kind] = collective.moved
    assert moved == {"all-gather": 5 * 64 * 64 * 2 * 3 / 4, "all-reduce": 2 * 4096 * 7 / 8,
                     "collective-permute": 4096, "reduce-scatter": 4096 * 3 / 4}


def test_traffic_of_a_text_as_counted_by_hand():
    layer = 16 * 64 * 2
    # A turn reads a layer of the stack and the counter, writes the layer, and sends it from HBM.
    turn = layer + 4 + layer + layer
    assert Program(TEXT).traffic() == 5 * turn + 3 * (4096 + 4096) - 4096 + 1024


def test_collectives_of_a_compiled_loop():
    mesh = make_mesh(1, 8, 1, jax.devices()[:8])
    weights = jax.ShapeDtypeStruct((6, 64, 64), jnp.float32, sharding=NamedSharding(
        mesh, PartitionSpec(None, "fsdp")))
    x = jax.ShapeDtypeStruct((16, 64), jnp.float32, sharding=batch_sharding(mesh))

    def layers(weights, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    with jax.set_mesh(mesh):
        text = jax.jit(layers).lower(weights, x).compile().as_text()
    gathers = [c for c in Program(text).collectives() if c.kind == "all-gather"]
    assert sum(c.moved for c in gathers) == 6 * (64 * 64 * 4) * 7 / 8


@pytest.mark.parametrize("text, devices", [
    ("{{0,1,2,3},{4,5,6,7}}", 4), ("[4,2]<=[8]", 2), ("[1,8]<=[8]", 8),
    ("mesh['x'=2,'y'=4] {'y'}", 4), ("mesh['x'=2,'y'=4] {'x','y'}", 8),
    ("mesh['x'=2,'y'=4] {'x','y':(1)2}", 4)])
def test_groups_of_devices(text, devices):
    program = Program("ENTRY %main (x: f32[8]) -> f32[8] {\n  %x = f32[8] parameter(0)\n"
                      f"  ROOT %y = f32[8] all-reduce(%x), replica_groups={text}, to_apply=%s\n}}")
    assert [c.group for c in program.collectives()] == [devices]


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
        return Plan(CHIPS["v5e"], {}, {"fsdp": 16}, 1, 1.0, 1, 1, 1, 1, 1, 1,
                    {"all-gather": seconds * CHIPS["v5e"].ici_bandwidth}, 1, 1.0, 1.0, "")

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
    assert chip_of("v5p:8x8x8").hbm > 90 * GIB
    for wrong in ("v5e", "v9:4x4", "v5e:4xx", "v5e:0x4"):
        with pytest.raises(ConfigError, match=f"--topology={wrong}: expected CHIP:AxB"):
            chip_of(wrong)
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
    config.remat.vision = "full"
    model = ModelConfig.from_mapping(config)
    assert (model.remat.vision, model.remat.text) == ("full", "none")
    config.remat.text = "some"
    with pytest.raises(ConfigError, match="model.remat.text = 'some': expected one of none, full"):
        ModelConfig.from_mapping(config)


# A small model whose layers are scanned, compiled for 16 chips by the command itself.
# Without a decoder, for each of its parts is a minute of a processor.
SMALL = ["--config.model.scan=True", "--config.model.vision_layers=5",
         "--config.model.text_layers=5", "--config.model.fusion_layers=5",
         "--config.model.vocab_size=4096", "--config.task.objectives.prefix_lm=0",
         "--config.task.objectives.vtm=0"]


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
    config.update(dict(scan=True, vocab_size=4096, vision_layers=5, text_layers=5,
                       fusion_layers=5))
    model = build(ModelConfig.from_mapping(config), MODULES[:-1], ("vtc", "mlm"))
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
    code = ("from mplug2_jax.planning.plan import topology_devices\n"
            "from mplug2_jax.parallel.mesh import make_mesh\n"
            "for topology in ('v4:2x2x1', 'v5p:2x2x1', 'v5e:2x2', 'v6e:2x2'):\n"
            "    print(make_mesh(1, 2, 2, topology_devices(topology)).size)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    assert done.stdout.split() == ["4"] * 4


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
    plan = Plan(chip, {"image": 8}, {"data": 1, "fsdp": 4, "tensor": 1}, 10, 1.0, GIB, 2 * GIB,
                3 * GIB, 3 * GIB, 4 * int(chip.flops), 8 * int(chip.flops),
                {"all-reduce": 3e12}, 0, 1.0, 2.0, "")
    assert plan.bounds == {"compute": 2.0, "memory": 0.0,
                           "interconnect": pytest.approx(3e12 / chip.ici_bandwidth)}
    assert "by interconnect" in plan.table()
    faster = dataclasses.replace(plan, collectives={})
    assert "by compute" in faster.table() and "MFU at most 50%" in faster.table()
