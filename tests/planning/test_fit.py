"""A recipe that fits: what is compiled, in which order, what is kept, and why nothing fits."""

import dataclasses
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from commands import ROOT
from marks import needs_libtpu
from test_aot import plan_of

from configs import msrvtt_caption, msrvtt_retrieval, pretrain
from mplug2_jax.planning import suggest
from mplug2_jax.planning.chips import GIB
from mplug2_jax.planning.estimate import Needs, needs
from mplug2_jax.planning.plan import DoesNotFit
from mplug2_jax.planning.search import (
    FITTED,
    Candidate,
    NothingFits,
    fit,
    guess,
    meshes,
    micro_batches,
)
from mplug2_jax.planning.topology import parse_topology

V5E = parse_topology("v5e:4x4")  # 14.49 GiB are usable
BOTH = {"none": 16 * 100 * GIB, "full": 16 * 10 * GIB}  # kept of the whole batch


def needed(none=BOTH["none"], full=BOTH["full"], features=0):
    state = dataclasses.make_dataclass("State", ["params"])({})
    jax.tree_util.register_dataclass(type(state), ["params"], [])
    return Needs(state, {"none": none, "full": full}, layers=60, features=features)


def compiler(found, factor=1.0, seconds=None, asked=None):
    """Compiles to what the estimate says times a factor; seconds by remat."""
    def compiled(config):
        remat, count = config.model.remat.vision, config.task.accumulation
        (asked if asked is not None else []).append((remat, count))
        mesh = {axis: config.mesh[axis] for axis in ("data", "fsdp", "tensor")}
        peak = int(factor * found.peak(mesh, remat, count))
        if peak > V5E.chip.hbm:
            raise DoesNotFit(peak, V5E.chip.hbm, [])
        return plan_of(mesh, peak=peak, traffic=int(
            (seconds or {"none": 1.0, "full": 2.0})[remat] * V5E.chip.hbm_bandwidth))
    return compiled


def test_the_lightest_is_kept_where_it_takes_the_shortest_step(capsys):
    config, found, asked = msrvtt_caption.get_config("large"), needed(), []
    chosen, plan = fit(config, V5E, found, compiler(found, asked=asked))
    # 100 GiB a device fit in 8 parts; batches of 64 on 16 devices are 4 at most.
    assert asked == [("full", 1)] and chosen.model.remat.vision == "full"
    found = needed(none=16 * 20 * GIB)
    asked.clear()
    chosen, plan = fit(config, V5E, found, compiler(found, asked=asked))
    assert asked == [("full", 1), ("none", 2)]
    assert (chosen.model.remat.vision, chosen.task.accumulation) == ("none", 2)
    assert set(chosen.model.remat.to_dict().values()) == {"none"} and plan.seconds == 1.0
    slower = compiler(found, seconds={"none": 3.0, "full": 2.0})
    assert fit(config, V5E, found, slower)[0].model.remat.vision == "full"
    assert chosen.data.streams.video.batch_size == config.data.streams.video.batch_size
    assert "remat none, micro-batches 2: peak" in capsys.readouterr().out


def test_what_the_compiler_says_corrects_the_estimates():
    config, found, asked = msrvtt_caption.get_config("large"), needed(none=16 * 20 * GIB), []
    chosen, _ = fit(config, V5E, found, compiler(found, 1.5, asked=asked))
    assert asked == [("full", 1), ("full", 2), ("none", 4)]
    assert chosen.task.accumulation == 4
    asked.clear()
    # Far less than estimated: the step in fewer parts is tried after all.
    found = needed(full=16 * 20 * GIB)
    fit(config, V5E, found, compiler(found, 0.4, asked=asked))
    assert asked == [("full", 2), ("full", 1), ("none", 4)]


def test_where_examples_are_compared_more_micro_batches_pay_for_no_lighter_remat():
    config, asked = msrvtt_retrieval.get_config("large"), []
    found = needed(none=16 * 20 * GIB, features=GIB)
    chosen, _ = fit(config, V5E, found, compiler(found, asked=asked))
    assert asked == [("full", 1)] and chosen.task.accumulation == 1


def test_why_nothing_fits_is_one_line():
    config = msrvtt_caption.get_config("large")
    found = needed(full=16 * 1000 * GIB)
    with pytest.raises(NothingFits, match=r"nothing fits v5e:4x4: with full remat and 4 "
                                          r"micro-batches, video 1 a device, a step takes about"):
        fit(config, V5E, found, compiler(found))
    with pytest.raises(NothingFits, match="v5e:4x4"):
        guess(config, V5E, found)
    with pytest.raises(NothingFits, match=r"256 devices cannot share the config's batches \(video "
                                          r"32\)") as raised:
        config.data.streams.video.batch_size = 32
        fit(config, parse_topology("v5e:16x16"), found, compiler(found))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("hardware, batch, mesh, parts", [
    ("h100:1", 64, (1, 1, 1), 64), ("h100:8", 64, (1, 8, 1), 8), ("v5e:4x4", 64, (1, 16, 1), 4),
    ("v5e:16x16", 4096, (16, 16, 1), 16), ("v5p:4x4x4", 32, (2, 16, 2), 1),
    ("2xv5e:4x4", 64, (2, 16, 1), 2), ("4xv5e:4x4", 32, (4, 8, 2), 1)])
def test_the_mesh_divides_the_batch_and_data_crosses_the_slices(hardware, batch, mesh, parts):
    config = msrvtt_caption.get_config("large")
    config.data.streams.video.batch_size = batch
    topology = parse_topology(hardware)
    found = next(meshes(config, topology))
    assert tuple(found.values()) == mesh and found["data"] % topology.slices == 0
    assert micro_batches(config, found)[-1] == parts


def test_estimates_follow_from_shapes():
    config = pretrain.get_config("tiny,image")
    config.model.scan = True
    for name in ("vtm", "mlm", "prefix_lm"):
        config.task.objectives[name] = 0.0
    found = needs(config, FITTED)
    mesh = dict(data=1, fsdp=1, tensor=1)
    params = 4 * sum(x.size for x in jax.tree.leaves(found.state.params))
    held = [found.peak(mesh, policy, 1) - found.peak(mesh, policy, 2) + params
            for policy in ("none", "full")]
    assert found.kept["none"] > 4 * found.kept["full"] > 0 and found.features > 0
    assert held[0] == pytest.approx(found.kept["none"] / 2 - found.features)
    wide = dict(data=16, fsdp=16, tensor=1)
    few = found.peak(wide, "none", 1) - GIB / 2
    whole = found.peak(mesh, "none", 1) - GIB / 2
    assert whole / 256 < few < whole / 16  # small parameters are whole on every device
    config.data.streams.image.batch_size //= 2
    assert needs(config, FITTED).kept["none"] == pytest.approx(found.kept["none"] / 2, rel=0.01)


def test_the_flags_are_those_that_differ():
    config = msrvtt_caption.get_config("large")
    found = Candidate(dict(data=1, fsdp=16, tensor=1), "none", 2).of(config)
    assert suggest.overrides(config, found) == [
        "--config.mesh.fsdp=16", *(f"--config.model.remat.{module}=none" for module in (
            "decoder", "fusion", "text", "universal", "vision")), "--config.task.accumulation=2"]
    assert config.task.accumulation == 1 and suggest.overrides(config, config) == []
    for flag in suggest.overrides(config, found):
        key, _, value = re.fullmatch(r"--config\.([\w.]+)(=)(\w+)", flag).groups()
        section, name = key.rsplit(".", 1)
        part = config
        for step in section.split("."):
            part = part[step]
        assert name in part


def test_the_command_prints_the_flags_the_peak_and_the_bound(monkeypatch, capsys):
    config = msrvtt_caption.get_config("large")
    found = Candidate(dict(data=1, fsdp=1, tensor=1), "none", 32).of(config)
    chip = parse_topology("h100:1").chip
    plan = plan_of(dict(data=1, fsdp=1, tensor=1), chip=chip, peak=int(0.8 * chip.hbm),
                   model_flops=chip.flops, traffic=2 * chip.hbm_bandwidth)
    monkeypatch.setattr(jax.config, "update", lambda key, value: None)  # of this process
    monkeypatch.setattr(suggest, "suggest", lambda config, topology: (found, plan))
    monkeypatch.setattr(suggest, "flags", SimpleNamespace(FLAGS=SimpleNamespace(
        config=config, hardware="h100:1", optimization_level="O1")))
    suggest.main()
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["add"].split() == suggest.overrides(config, found)
    assert said["before"] == "XLA_PYTHON_CLIENT_MEM_FRACTION=0.92"
    assert said["peak"] == "63.29 GiB of 79.11 GiB, 80%; video 2 a device at once"
    assert said["step"] == "at least 2.000 s, by memory; MFU at most 50%"


@needs_libtpu
@pytest.mark.parametrize("hardware, code, said", [
    ("v5e:16x16", 1, "nothing fits v5e:16x16: 256 devices cannot share the config's batches (text "
                     "32), also where up to 4 compute an example together; take fewer devices"),
    ("h100:8x8", 2, "error: --hardware=h100:8x8: expected CHIP:AxB")])
def test_the_command_says_why_not_in_a_line(hardware, code, said):
    done = subprocess.run(
        [sys.executable, "-m", "mplug2_jax.planning", "suggest",
         "--config=configs/glue_classification.py:rte", f"--hardware={hardware}"], cwd=ROOT,
        capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    (line,) = (done.stdout or done.stderr).splitlines()
    assert line.startswith(said)
