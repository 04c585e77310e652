"""Every config has its recipes for every hardware, they can be run, and what is kept is true."""

import json
import subprocess
import sys

import jax
import pytest
from commands import ROOT
from marks import needs_libtpu

from benchmarks import recipes
from mplug2_jax.parallel.mesh import AXES, check_batch
from mplug2_jax.planning.chips import GIB
from mplug2_jax.planning.search import Candidate
from mplug2_jax.planning.topology import parse_topology

KEPT = json.loads((ROOT / recipes.OUT).read_text())["programs"]


def all_recipes():
    return [(key, hardware, recipe) for key, entry in KEPT.items()
            for hardware, recipe in entry["recipes"].items()]


@pytest.fixture(scope="module")
def programs():
    return recipes.programs()


def test_every_config_that_trains_has_recipes_for_all_hardware(programs):
    assert {key: entry["configs"] for key, entry in KEPT.items()} == {
        key: entry["configs"] for key, entry in programs.items()}, "make plan-all"
    assert all(set(entry["recipes"]) == set(recipes.HARDWARE) for entry in KEPT.values())


def test_recipes_leave_memory():
    for key, hardware, recipe in all_recipes():
        if "why_not" in recipe:
            assert hardware in recipe["why_not"] and "\n" not in recipe["why_not"]
        else:
            usable = parse_topology(hardware).chip.usable / GIB
            assert recipe["peak_gib"] <= usable + 0.06, (KEPT[key]["configs"], hardware)


def test_what_was_planned_as_it_is_is_a_recipe(tmp_path, monkeypatch):
    recipe = recipes.planned(["msvd_qa.py"], "v5e:4x4")
    assert recipe["mesh"] == "1x16x1" and recipe["remat"] == "full"
    assert recipe["peak_gib"] < 0.92 * recipe["of_gib"]
    assert recipes.planned(["msvd_qa.py"], "v5e:16x16") is None
    known = json.loads(recipes.plans.OUT.read_text())
    for change in ({"program": "other"}, {"plan": {"fits": True, "used_gib": 15.0}}):
        entry = known["configs"]["msvd_qa.py"] | change
        (tmp_path / "plans.json").write_text(json.dumps({"configs": {"msvd_qa.py": entry}}))
        monkeypatch.setattr(recipes.plans, "OUT", tmp_path / "plans.json")
        assert recipes.planned(["msvd_qa.py"], "v5e:4x4") is None


def test_recipes_can_be_run():
    for entry in KEPT.values():
        config = recipes.config_of(entry["configs"][0], entry["size"])
        for hardware, recipe in entry["recipes"].items():
            if "why_not" in recipe:
                continue
            mesh = dict(zip(AXES, map(int, recipe["mesh"].split("x")), strict=True))
            found = Candidate(mesh, recipe["remat"], recipe["accumulation"]).of(config)
            assert set(found.model.remat.to_dict().values()) == {recipe["remat"]}
            assert config.model.heads % mesh["tensor"] == 0
            abstract = jax.sharding.AbstractMesh(tuple(mesh.values()), AXES)
            assert abstract.size == parse_topology(hardware).size
            for name, stream in found.data.streams.items():
                check_batch(name, stream.batch_size, abstract, found.task.accumulation)


def test_an_interrupted_table_goes_on(tmp_path, monkeypatch):
    names = {"a": {"size": "base", "configs": ["msrvtt_qa.py"]},
             "b": {"size": "base", "configs": ["glue_classification.py:cola"]}}
    monkeypatch.setattr(recipes, "programs", lambda: names)
    monkeypatch.setattr(recipes, "compilable", lambda topology: not topology.chip.is_gpu)
    monkeypatch.setattr(recipes, "needs", lambda config, policies: None)
    monkeypatch.setattr(recipes, "planned", lambda names, hardware: None)
    monkeypatch.setattr(recipes, "estimated", lambda *given: {"by": "estimate", "peak_gib": 1.0})
    asked, out = [], tmp_path / "recipes.json"

    def separate(name, size, hardware):
        asked.append((name, hardware))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"by": "compiler", "peak_gib": 1.5, "tried": ["one: peak"]}

    monkeypatch.setattr(recipes, "separate", separate)
    given = (out, ["v5e:4x4", "h100:1"], "", True)
    with pytest.raises(KeyboardInterrupt):
        recipes.update(*given)
    recipes.update(*given)
    assert asked == [("msrvtt_qa.py", "v5e:4x4"), ("glue_classification.py:cola", "v5e:4x4"),
                     ("glue_classification.py:cola", "v5e:4x4")]
    found = json.loads(out.read_text())["programs"]
    assert {one["recipes"]["v5e:4x4"]["by"] for one in found.values()} == {"compiler"}
    assert {one["recipes"]["h100:1"]["by"] for one in found.values()} == {"estimate"}


@needs_libtpu
@pytest.mark.long  # `make test` compiles small steps for TPUs: planning/test_aot.py
def test_the_cheapest_compiles_to_what_is_kept():
    """`make plan-all` compiles all of them."""
    compiled = [(recipe["compile_seconds"], KEPT[key], hardware, recipe)
                for key, hardware, recipe in all_recipes()
                if recipe["by"] == "compiler" and "why_not" not in recipe
                and not parse_topology(hardware).chip.is_gpu]
    _, entry, hardware, recipe = min(compiled, key=lambda one: one[0])
    # In a process of its own: what libtpu is told of this machine holds for all of it.
    code = (
        "import sys, jax\n"
        "jax.config.update('jax_platforms', 'cpu')\n"
        "jax.config.update('jax_optimization_level', 'O1')\n"
        "from benchmarks.recipes import config_of\n"
        "from mplug2_jax.planning.plan import compile_plan\n"
        "from mplug2_jax.planning.search import Candidate\n"
        "from mplug2_jax.planning.topology import parse_topology\n"
        "name, size, hardware, mesh, remat, count = sys.argv[1:]\n"
        "mesh = dict(zip(('data', 'fsdp', 'tensor'), map(int, mesh.split('x'))))\n"
        "config = Candidate(mesh, remat, int(count)).of(config_of(name, size))\n"
        "print(compile_plan(config, parse_topology(hardware)).peak)\n")
    done = subprocess.run(
        [sys.executable, "-c", code, entry["configs"][0], entry["size"], hardware, recipe["mesh"],
         recipe["remat"], str(recipe["accumulation"])], cwd=ROOT, capture_output=True, text=True,
        timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    peak = int(done.stdout.split()[-1]) / GIB
    assert peak == pytest.approx(recipe["peak_gib"], rel=0.02, abs=0.02)
