"""What is installed: the package's dependencies, the pinned sets, what images are built of."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from commands import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = {name: group for name, group in PROJECT["dependency-groups"].items()}
EXTRAS = PROJECT["project"]["optional-dependencies"]
SETS = {path.stem: path for path in [ROOT / "requirements.txt",
                                     *sorted((ROOT / "requirements").glob("*.txt"))]}
FREE = {"peers"}  # one takes the build of PyTorch that one has
SETS = {name: path for name, path in SETS.items() if name not in FREE}
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
# The checkout alone uses these rooms of the package, and installs more: `train` of the groups.
CHECKOUT = {"mplug2_jax/training"}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement):
    return canonical(re.match(r"[\w.-]+", requirement)[0])


def distributions():
    """The package that each module is of."""
    found = importlib.metadata.packages_distributions()
    return {module: min(map(canonical, names)) for module, names in found.items()}


def at_import(tree):
    """The top-level modules that one imports as soon as it is imported itself."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_dependencies_are_what_the_package_imports():
    modules = {module: path for path in (ROOT / "mplug2_jax").rglob("*.py")
               if not any(path.is_relative_to(ROOT / room) for room in CHECKOUT)
               for module in at_import(ast.parse(path.read_text()))}
    of = distributions()
    used = {of[module]: path for module, path in modules.items()
            if module not in sys.stdlib_module_names and module != "mplug2_jax"}
    declared = {name_of(one) for one in PROJECT["project"]["dependencies"]}
    assert used.keys() == declared, {name: str(used.get(name)) for name in used.keys() ^ declared}


def pins(path):
    """What a set installs: versions and number of hashes, by package."""
    found = {}
    for line in path.read_text().splitlines():
        if pinned := re.match(r"([\w.-]+)==([^ ]+)", line):
            name = canonical(pinned[1])
            found.setdefault(name, []).append([pinned[2], 0])
        elif "--hash=sha256:" in line:
            found[name][-1][1] += 1
        else:
            assert line.startswith("    #") or line.startswith("#"), f"{path.name}: {line}"
    return found


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_pinned_with_hashes(name):
    found = pins(SETS[name])
    assert len(found) > 40 and all(count for rows in found.values() for _, count in rows)


def test_sets_agree_with_each_other():
    """All of them, but what Beam asks for, which is an environment of its own."""
    first, *others = [pins(path) for name, path in SETS.items() if name != "beam"]
    for other in others:
        for name in first.keys() & other.keys():
            assert first[name] == other[name], name
    for name in ("tpu", "cuda12", "cuda13", "dev"):
        assert pins(SETS[name]).keys() > pins(SETS["requirements"]).keys()


@pytest.mark.parametrize("name, wanted", [
    ("requirements", [*PROJECT["project"]["dependencies"], *GROUPS["train"]]),
    ("dev", EXTRAS["dev"]), ("page", EXTRAS["page"]), ("beam", GROUPS["beam"])])
def test_lower_bounds_are_the_pins(name, wanted):
    """No version below is tested; so none is promised."""
    found = pins(SETS[name])
    bounds = [re.fullmatch(r"([\w.-]+)>=([\w.]+)(;.*)?", one) for one in wanted]
    assert all(bounds[i] or "[" in one for i, one in enumerate(wanted)), wanted
    for bound in filter(None, bounds):
        assert [version for version, _ in found[canonical(bound[1])]][0] == bound[2], bound[0]


def test_beam_s_workers_have_what_the_package_imports():
    """In other versions, so that the package is not installed there but found."""
    declared = {name_of(one) for one in PROJECT["project"]["dependencies"]}
    assert declared <= {name_of(one) for one in GROUPS["beam"]}


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_an_image_is_built_of_files_that_are_there(image):
    """`make lint` has hadolint read them, where they cannot be built."""
    text = re.sub(r"\\\n", " ", image.read_text())
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [file for word, *rest in lines if word == "COPY" for file in rest[:-1]]
    for cuda in ("12", "13"):
        for file in copied:
            path = Path(file.replace("${CUDA}", cuda))
            assert (ROOT / path).exists(), file
            assert f"!{path.parts[0]}" in ignored, f".dockerignore keeps {file} out"
    words = [word for word, *_ in lines]
    assert words[0] in ("FROM", "ARG") and words[-1] == "ENTRYPOINT"
    (user,) = [rest for word, *rest in lines if word == "USER"]
    assert user not in (["root"], ["0"]) and "--require-hashes" in text
    # What train.py imports is all there.
    assert {"mplug2_jax", "configs", "data", "train.py"} <= set(copied)
