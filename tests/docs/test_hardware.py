"""Tables and plot of what was compiled for hardware that is not there."""

import xml.etree.ElementTree as ElementTree

import flax.struct
import jax
import jax.numpy as jnp
import pytest

from benchmarks import scale
from docs import hardware, make
from mplug2_jax.planning.estimate import Needs


class State(flax.struct.PyTreeNode):
    params: dict


def step(chips, seconds, batch=scale.WHOLE):
    return {"chips": chips, "batch": batch, "seconds": seconds}


def test_what_follows_goes_through_what_was_compiled():
    known = [step(256, {"compute": 0.8, "memory": 1.0, "interconnect": 0.06, "dcn": 0.0}),
             step(1024, {"compute": 0.2, "memory": 0.4, "interconnect": 0.05, "dcn": 0.03}),
             step(1024, {"compute": 0.8, "memory": 9.0, "interconnect": 1.0, "dcn": 1.0}, 131_072)]
    line = dict(scale.continued("v5e", known))
    assert line[1024] == pytest.approx(scale.cost(known[1]))
    # Memory: 0.2 s that stay, and 0.2 s of 32 images a chip, of which twice the chips have half.
    assert line[2048] == pytest.approx(2048 * 0.3 / scale.WHOLE * 1e6 / 3600)
    assert max(line) == scale.WHOLE // scale.FEWEST
    assert list(line.values()) == sorted(line.values())  # ever dearer
    assert scale.continued("v5e", known[:1]) == []


def test_on_paper_each_chip_sends_its_part_of_the_gradient_to_the_other_slices():
    params = {"w": jax.ShapeDtypeStruct((64, 1024, 1024), jnp.float32)}
    found = Needs(State(params), {"none": 0, "full": 0}, layers=1, features=0)
    case = scale.Case("4xv5e:16x16", 65_536)
    step = scale.on_paper(case, found, executed=10 ** 17, forward=3 * 10 ** 16)
    part = 4 * 64 * 2 ** 20 / 256  # of the weights, of a chip of a slice, all slices alike
    own = 65_536 / 1024 * 2 * 256 * 4  # features of its images and texts, which three others get
    assert step["contrastive_dcn_mib"] == round(3 * own / 2 ** 20, 2)
    assert step["dcn_mib"] == round((part * 2 * 3 / 4 + 3 * own) / 2 ** 20, 1)
    assert step["seconds"]["compute"] == round(10 ** 17 / 1024 / 197e12, 4)
    one = scale.on_paper(scale.Case("v5e:16x16", 65_536), found, 10 ** 17, 3 * 10 ** 16)
    assert one["dcn_mib"] == 0 and "dcn" not in one["seconds"]


def test_a_chip_hour_is_an_hour_of_a_chip():
    million = step(3600, {"compute": 1.0}, 1_000_000)
    assert scale.cost(million) == 1.0


def test_the_plot_has_a_point_for_each_step():
    lines = [("one", [(256, 1.0), (1024, 2.0)]), ("two", [(256, 3.0)])]
    root = ElementTree.fromstring(hardware.svg(lines, [("one", [(1024, 2.0), (4096, 5.0)])]))
    name = "{http://www.w3.org/2000/svg}"
    points = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter(f"{name}circle")]
    assert len(points) == 3
    assert points[0][0] == points[2][0] < points[1][0] < hardware.WIDTH
    assert hardware.HEIGHT > points[0][1] > points[1][1] > points[2][1] > 0
    said = {text.text for text in root.iter(f"{name}text")}
    assert {"one", "two", "chips", "256", "4,096"} <= said


def test_a_recipe_says_what_no_compiler_has():
    recipe = {"by": "estimate", "mesh": "1x16x1", "remat": "full", "accumulation": 4,
              "peak_gib": 9.25}
    assert hardware.cell(recipe) == "1x16x1 full / 4: ~9.2"
    assert hardware.cell(recipe | {"by": "compiler", "accumulation": 1}) == "1x16x1 full: 9.2"
    assert hardware.cell({"by": "compiler", "why_not": "nothing fits"}) == "-"


def test_every_config_stands_in_the_table():
    page = make.hardware_page()
    for name, config in make.configs():
        trains = config.data.streams and not name.startswith(("demo", "own"))
        assert (f"`{name}`" in page) == bool(trains), name
