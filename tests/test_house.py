"""What the house's survey finds in a small tree."""

import subprocess
import sys
from pathlib import Path

import pytest
from house import survey

PROJECT = """
[tool.importlinter]
root_packages = ["mplug2_jax", "data"]
[[tool.importlinter.contracts]]
name = "floors"
type = "layers"
layers = ["data.inspect", "mplug2_jax.top | data.prepare", "mplug2_jax.low | (mplug2_jax.soon)"]
ignore_imports = ["data.prepare.__main__ -> data.inspect.**"]
"""
FILES = {"train.py": "from mplug2_jax.top import one\n",
         "mplug2_jax/__init__.py": "", "data/__init__.py": "",
         "mplug2_jax/top/__init__.py": "", "mplug2_jax/top/one.py": "from .. import low\n",
         "mplug2_jax/low.py": "import os\n\n\ndef one():\n    return os\n",
         "data/inspect/__init__.py": "", "data/inspect/text.py": "",
         "data/prepare/__init__.py": "", "data/prepare/__main__.py": "import data.inspect.text\n"}


@pytest.fixture
def tree(tmp_path):
    def build(**changed):
        files = FILES | {name.replace("__", "/") + ".py": text for name, text in changed.items()}
        (tmp_path / "pyproject.toml").write_text(PROJECT)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path
    return build


def test_rooms_floors_and_imports_are_those_of_the_layers(tree):
    house = survey(tree())
    assert house.rooms == {"train": 0, "data.inspect": 0, "mplug2_jax.top": 1, "data.prepare": 1,
                           "mplug2_jax.low": 2}
    assert house.imports == {("train", "mplug2_jax.top"), ("mplug2_jax.top", "mplug2_jax.low"),
                             ("data.prepare", "data.inspect")}
    assert house.functions == {"mplug2_jax/low.py:4 one": 2} and not house.faults


@pytest.mark.parametrize("changed, fault", [
    ({"mplug2_jax__low": "def one():\n    from mplug2_jax.top import one\n"},
     "not downward: mplug2_jax.low imports mplug2_jax.top.one"),
    ({"mplug2_jax__top__one": "import data.prepare\n"},  # of the same floor
     "not downward: mplug2_jax.top.one imports data.prepare"),
    ({"data__prepare__work": "from data.inspect import text\n"},
     "not downward: data.prepare.work imports data.inspect.text"),
    ({"mplug2_jax__soon": "from .top import one\n"},
     "not downward: mplug2_jax.soon imports mplug2_jax.top.one"),
    ({"data__other": ""}, "on no floor: data.other"),
    ({"mplug2_jax__low": "\n" * 401}, "file of 401 lines, over 400: mplug2_jax/low.py"),
    ({"tests__a__test_one": "", "tests__b__test_one": ""},
     "of one name: tests/a/test_one.py, tests/b/test_one.py"),
    ({"data__inspect__text": "class A:\n  async def long(self):\n" + "    await self\n" * 60},
     "function of 61 lines, over 60: data/inspect/text.py:2 long"),
])
def test_a_fault_is_named(tree, changed, fault):
    assert survey(tree(**changed)).faults == [fault]


def test_the_script_reports_the_tree_it_lies_in(tree):
    root, script = tree(mplug2_jax__low="import data.inspect\n"), Path(__file__).parent / "house.py"
    (root / "tests").mkdir()
    (root / "tests" / "house.py").write_text(script.read_text())

    def run():
        return subprocess.run([sys.executable, root / "tests" / "house.py"], capture_output=True,
                              text=True, check=False)

    done = run()
    assert done.returncode == 1 and "5 rooms on 3 floors, 4 imports" in done.stdout, done.stderr
    assert "1 not downward" in done.stdout and "mplug2_jax.low imports data.inspect" in done.stdout
    tree()
    assert run().returncode == 0
