"""Programs of GPUs that are not there: what the text of one says, and where there is no compiler.

`tests/golden/gpu_step.txt` is what XLA (jaxlib 0.10.2) made for eight H100, mesh data 2 x fsdp 4,
of the gradient of three scanned layers, `x + attention(x @ w)`: x bf16 [16, 256, 256] over the
batch, 4 heads, w bf16 [3, 256, 768] over fsdp. What the parser does not read is cut out.
"""

import re

import pytest
from commands import ROOT

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.planning import topology
from mplug2_jax.planning.hlo import Program
from mplug2_jax.planning.topology import devices_of, gpu_compiler, parse_topology

TEXT = (ROOT / "tests" / "golden" / "gpu_step.txt").read_text()
MESH = {"data": 2, "fsdp": 4, "tensor": 1}
WEIGHTS = 256 * 768 * 2  # bytes of a layer's


def test_the_collectives_of_a_program_for_gpus():
    found = [(one.kind, one.size, one.times, one.axes(MESH), one.moved)
             for one in Program(TEXT).collectives()]
    # Of each layer the weights are gathered forward and backward, and their gradient is summed.
    gather = ("all-gather", WEIGHTS, 3, "fsdp", 3 * WEIGHTS * 3 / 4)
    assert found == [gather, gather, ("all-reduce", WEIGHTS, 3, "data+fsdp",
                                      3 * 2 * WEIGHTS * 7 / 8)]


def test_launches_are_counted_by_kind():
    launches = Program(TEXT).launches()
    # A product forward and two backward, attention in one kernel each way, in each of three layers.
    assert launches["cublas$lt$matmul"] == 9
    assert launches["cudnn$fmhaSoftmax"] == launches["cudnn$fmhaSoftmaxBackward"] == 3
    assert launches["all-gather-start"] == 6 and launches["fusion"] > 30
    assert "all-gather-done" not in launches and "get-tuple-element" not in launches


def test_the_scratch_memory_of_libraries_is_no_traffic():
    text = "\n".join(line for line in TEXT.splitlines() if "__cublas" in line)
    assert len(re.findall(r"s8\[33554432\]", text)) == 3
    moved = Program(TEXT).traffic()
    assert moved == Program(TEXT.replace("s8[33554432]", "s8[1024]")).traffic()
    activation = 2 * 256 * 256 * 2  # of a device
    # At least each product's and kernel's arrays, at most a dozen more activations a layer.
    least = 3 * (3 * (activation + WEIGHTS + 3 * activation) + 4 * activation + 10 * activation)
    assert least < moved < 3 * least
    called = TEXT.replace('custom_call_target="__cublas$lt$matmul"', 'custom_call_target="own"')
    assert Program(called).traffic() == moved + 9 * 33_554_432


@pytest.mark.skipif(gpu_compiler(), reason="the compiler for GPUs is installed")
def test_where_there_is_no_compiler_the_line_says_how_to_get_it():
    with pytest.raises(ConfigError, match="h100:8: no compiler for GPUs .*`make plan-gpu`"):
        devices_of(parse_topology("h100:8"))


@pytest.mark.parametrize("name", ["h100:1", "h200:8", "b200:8", "gb200:4"])
def test_what_the_compiler_is_told_of_a_gpu(name):
    hardware = parse_topology(name)
    told = topology._gpu_target(hardware)
    assert f"device_memory_size: {int(hardware.chip.hbm)} " in told
    assert f"memory_bandwidth: {int(hardware.chip.hbm_bandwidth)} " in told
    assert hardware.chip.kind in told and hardware.chip.flops > 9e14
