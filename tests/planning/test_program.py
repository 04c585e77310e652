"""What is read of a compiled program's text, against counts by hand."""


import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mplug2_jax.parallel.mesh import batch_sharding, make_mesh
from mplug2_jax.planning.hlo import Program

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


SLICES = """
%all-reduce-scatter.1 (y: f32[1024]) -> f32[128] {
  %y = f32[1024]{0} parameter(0)
  %whole = f32[1024]{0} all-reduce(%y), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum
  ROOT %own = f32[128]{0} dynamic-slice(%whole, %y), dynamic_slice_sizes={128}
}

ENTRY %main (x: f32[1024]) -> f32[128] {
  %x = f32[1024]{0} parameter(0)
  %after = token[] after-all()
  %own.1 = f32[128]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1, META
  %send = (f32[128]{0}, u32[], token[]) send(%own.1, %after), frontend_attributes={TO="ALL_REDUCE"}
  %recv = (f32[128]{0}, u32[], token[]) recv(%after), frontend_attributes={TO="ALL_REDUCE"}
  %sent = token[] send-done(%send)
  %send.1 = (f32[16]{0}, u32[], token[]) send(%x, %after), frontend_attributes={TO="ALL_GATHER"}
  ROOT %last = f32[128]{0} copy(%own.1)
}
""".replace("META", 'metadata={op_name="jit(step)/contrastive/sum"}').replace(
    "TO=", '_xla_megascale_target="{1,4}x{0:7}",_xla_megascale_transfer_type=')


def test_what_goes_between_slices_as_counted_by_hand():
    inside, between, gathered = Program(SLICES).collectives()
    assert (inside.kind, inside.moved, inside.outside) == ("reduce-scatter", 4096 * 7 / 8, False)
    assert inside.axes({"data": 2, "fsdp": 4, "tensor": 1}) == "data+fsdp"
    assert (between.kind, between.moved, between.axes({})) == (
        "all-reduce", 512 * 2 * 3 / 4, "slices")
    assert between.source == "jit(step)/contrastive/sum"
    assert (gathered.kind, gathered.moved) == ("all-gather", 4 * 64 * 3 / 4)


@pytest.mark.parametrize("groups, axes", [
    ("{{0,1,2,3},{4,5,6,7}}", "fsdp"), ("{{0,4},{1,5},{2,6},{3,7}}", "data"),
    ("[4,2]<=[2,4]T(1,0)", "data"), ("[2,4]<=[8]", "fsdp"), ("[1,8]<=[8]", "data+fsdp"),
    ("mesh['data'=2,'fsdp'=4] {'data'}", "data"), ("[8,1]<=[8]", "none"),
    ("mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}", "fsdp")])
def test_the_axes_that_a_collective_goes_along(groups, axes):
    program = Program("ENTRY %main (x: f32[8]) -> f32[8] {\n  %x = f32[8] parameter(0)\n"
                      f"  ROOT %y = f32[8] all-reduce(%x), replica_groups={groups}\n}}")
    (found,) = program.collectives()
    assert found.axes({"data": 2, "fsdp": 4, "tensor": 1}) == axes


def test_a_permutation_goes_along_the_axes_of_its_pairs():
    text = ("ENTRY %main (x: f32[8]) -> f32[8] {\n  %x = f32[8] parameter(0)\n  ROOT %y = f32[8] "
            "collective-permute(%x), source_target_pairs={PAIRS}\n}")
    for pairs, axes in (("{0,1},{1,2},{2,3},{3,0}", "fsdp"), ("{0,4},{4,0}", "data"),
                        ("{0,1},{3,4}", "data+fsdp")):
        (found,) = Program(text.replace("PAIRS", pairs)).collectives()
        assert found.axes({"data": 2, "fsdp": 4, "tensor": 1}) == axes and found.moved == 32


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
