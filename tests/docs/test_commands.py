"""What the docs name is there: every command with its flags and keys, every path and link.

A command is parsed by the script's own parser and its config is checked (`parse_flags.py`);
`describe` and `goodput` are run, and print what the docs show; more is run by `test_typed.py`.
"""

import ast
import itertools
import json
import pkgutil
import re
import shlex
from pathlib import Path

import house
import pytest
from commands import ROOT, run, seen
from forks import finished
from pages import PAGES, PYTHON, blocks, lines, spans

from configs import common, keys
from mplug2_jax import tasks
from mplug2_jax.contracts import options

# What the docs leave open.
OPEN = {"CONFIG": "configs/demo.py", "DATASET": "msrvtt", "...": "--config=configs/demo.py"}
# Flags of other programs: Slurm, Beam's runners.
FOREIGN = {"gpus-per-task", "gpu-bind", "flink_master", "signal", "requeue", "xla_gpu_enable_"
           "latency_hiding_scheduler"}
LAUNCHER = ["-m", "mplug2_jax.launch"]  # its flags are in front of "--" and another command
UNPARSED = ("-c", "tests/house.py")  # they have no flags
KEY = re.compile(r"(?:^|\s|--config\.)((?:task|model|optimizer|mesh|data|evals)\.[\w.*]+)")
pytestmark = pytest.mark.slow


def braces(word: str) -> list[str]:
    """As a shell expands `a{b,c}d`."""
    found = re.search(r"\{([^{}]*,[^{}]*)\}", word)
    if not found or word.startswith(("(", "'")):
        return [word]
    return [one for part in found[1].split(",")
            for one in braces(word[:found.start()] + part + word[found.end():])]


def arguments(line: str) -> list[str] | None:
    """The arguments of a line's `python`, None where it calls none."""
    if not (start := PYTHON.search(line)):
        return None
    rest = line[start.end():]
    if line.count('"', 0, start.end()) % 2:  # within a string: up to its end
        rest = rest[:rest.index('"')]
    words = shlex.split(rest, comments=True)
    words = list(itertools.takewhile(lambda word: word not in ("&", "&&", "|", ";"), words))
    return [OPEN.get(one, one).replace("=CONFIG", f"={OPEN['CONFIG']}").replace("$i", "0")
            for word in words for one in braces(word.rstrip("`"))]


def scripts() -> dict[tuple[str, ...], list[tuple[str, list[str]]]]:
    """By script, the lines that call it and their arguments."""
    found: dict[tuple[str, ...], list[tuple[str, list[str]]]] = {}
    for page in PAGES:
        for line in lines(page):
            words = arguments(line)
            if words is None or words[0] in UNPARSED or words[:2] in (["-m", "venv"],
                                                                      ["-m", "pytest"]):
                continue
            if words[:2] == LAUNCHER:
                end = words.index("--")
                assert all(re.fullmatch(r"--(processes|devices)=\d+", one)
                           for one in words[2:end]), line
                words = words[end + 1:]
            size = 2 if words[0] == "-m" else 1
            if words[:2] == ["-m", "mplug2_jax.planning"]:  # a command of it, perhaps with a name
                size = 3
                if (ROOT / "mplug2_jax" / f"{words[2]}.py").exists():
                    words[:3], size = ["-m", f"mplug2_jax.{words[2]}"], 2
            found.setdefault(tuple(words[:size]), []).append((f"{page.name}: {line}", words[size:]))
    return found


@pytest.fixture(scope="module")
def parsed() -> dict[tuple[str, ...], dict]:
    """What parsing the commands of each script gave; no arguments at all are no command."""
    result = {}
    for script, calls in scripts().items():
        given = [words for _, words in calls if words]
        done = finished([Path(__file__).with_name("parse_flags.py"), *script],
                        seen(path=ROOT / "docs" / "examples"), given=json.dumps(given))
        assert done.returncode == 0 and done.stdout, (script, done.stderr[-3000:])
        report = json.loads(done.stdout.splitlines()[-1])
        result[script] = {"flags": set(report["flags"]), "faults": dict(zip(
            [line for line, words in calls if words], report["faults"], strict=True))}
    return result


def test_every_command_parses(parsed):
    faults = {line: fault for report in parsed.values()
              for line, fault in report["faults"].items() if fault}
    assert not faults, "\n".join(f"{line}\n    {fault}" for line, fault in faults.items())
    for script in (("train.py",), ("eval.py",), ("predict.py",), ("-m", "data.prepare"),
                   ("-m", "data.inspect"), ("-m", "mplug2_jax.describe"), ("-m", "mplug2_jax.aot"),
                   ("-m", "mplug2_jax.convert"), ("-m", "mplug2_jax.inference"),
                   ("-m", "mplug2_jax.planning", "goodput"),
                   *(("-m", f"benchmarks.{name}") for name in (
                       "input", "step", "captioning", "galleries"))):
        assert script in parsed, f"no page says how {script} is called"


def test_a_wrong_command_is_found():
    wrong = [["--config=configs/demo.py", "--workdri=x"], ["--config=configs/gone.py"],
             ["--config=configs/demo.py", "--config.optimizer.stepz=1"]]
    done = finished([Path(__file__).with_name("parse_flags.py"), "train.py"], seen(),
                    given=json.dumps(wrong))
    for fault, word in zip(json.loads(done.stdout.splitlines()[-1])["faults"],
                           ("workdri", "gone.py", "stepz"), strict=True):
        assert word in fault


def test_every_flag_and_key_of_a_sentence_is_there(parsed):
    names = set().union(*(report["flags"] for report in parsed.values())) | FOREIGN
    names |= {"devices"}  # of the launcher
    config = common.base("tiny")
    known = {keys.kind_of(key) for key in keys.all_comments(config)} | {"data.streams", "task.name"}
    known |= {key for name in tasks.names()
              for key, _ in options.comments(tasks.load(name).Options, "task.")}
    known |= {key.rpartition(".")[0] for key in known} | {*keys.keys(config)}
    known |= {f"data.{room.name}" for room in pkgutil.iter_modules([str(ROOT / "data")])}
    for page in PAGES:
        for span in spans(page):
            for flag in re.findall(r"(?:^|\s)--([\w-]+)(?![\w.-])", span):
                assert flag in names, f"{page.name}: --{flag}"
            for key in KEY.findall(span):
                assert keys.kind_of(key) in known, f"{page.name}: {key}"


def test_python_in_the_pages_runs():
    found = [text for page in PAGES for language, text in blocks(page) if language == "python"]
    assert found
    for text in found:
        exec(text, {"common": common, "config": common.base("tiny")})


def test_every_path_link_and_target_is_there():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        text = page.read_text()
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if not link.startswith("http"):
                assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"
        for path in re.findall(
                r"(?<![\w/])(?:mplug2_jax|configs|data|docs|tests|benchmarks|requirements|docker|"
                r"launch)/[\w./-]*\w", text):
            if not path.startswith(("data/pretrain", "tests/golden/NAME")):
                there = (ROOT / path).exists() or any(ROOT.glob(f"{path}.*"))
                assert there, f"{page.name}: {path}"
        for line in lines(page):
            for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)(?=\s|$)", line):
                assert re.search(rf"^{target}:", makefile, re.M), f"{page.name}: make {target}"
            words = arguments(line) or []
            if words[:2] == ["-m", "pytest"]:
                assert (ROOT / words[2]).is_file(), line
            elif words[:1] == ["-c"]:
                compile(words[1], line, "exec")


def test_the_floors_are_those_that_are_held():
    (text,) = [text for _, text in blocks(ROOT / "docs/architecture.md")
               if text.startswith("data.inspect")]
    floors = house.read_plan(ROOT / "pyproject.toml").floors
    floors[0] = [name for name in floors[0] if name not in house.SCRIPTS]
    assert text.splitlines() == [" | ".join(floor) for floor in floors]


def test_the_stops_of_a_batch_are_there():
    rows = re.findall(r"^\| \d+ \| `([^`]+)` \| `([^`]+)` \|",
                      (ROOT / "docs/architecture.md").read_text(), re.M)
    assert len(rows) == 10
    for file, name in rows:
        scope = ast.parse((ROOT / file).read_text()).body
        for part in name.split("."):
            (found,) = [node for node in scope if getattr(node, "name", "") == part]
            scope = found.body


def test_examples_are_short():
    examples = ROOT / "docs" / "examples"
    for files in (("counting.py", "counting_config.py"), ("photos.py",),
                  ("spectrogram.py", "spectrogram_config.py")):
        assert sum(len((examples / name).read_text().splitlines()) for name in files) < 80
    assert len((ROOT / "docs/architecture.md").read_text().splitlines()) <= 150
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def dialogues() -> list[tuple[str, str]]:
    """Each `describe` and `goodput` of a dialogue, and what stands below it."""
    joined = [re.sub(r"\\\n\s*", " ", text) for page in PAGES for _, text in blocks(page)]
    found = [part.partition("\n") for text in joined if text.startswith("$ ")
             for part in re.split(r"^\$ ", text, flags=re.M)[1:]]
    return [(typed, said.strip()) for typed, _, said in found
            if re.search(r"[. ](describe|goodput) ", typed)]


@pytest.mark.parametrize("typed, said", dialogues())
def test_a_dialogue_prints_what_the_docs_show(typed, said):
    assert said in run(*arguments(typed))
