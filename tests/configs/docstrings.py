"""The commands of a config's docstring, for each of its data sets and variants."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import listing
from ml_collections import ConfigDict

SIZE = "large"  # of the commands


@dataclasses.dataclass
class Command:
    """One line of a docstring.

    Attributes:
      script: "train.py" or "eval.py".
      module: of `configs`, or "" for the checkpoint's own config.
      words: behind the colon, without the size.
      flags: the others, such as `{"workdir": "runs/cola", "config.init_from": "PRETRAINED"}`.
    """

    script: str
    module: str
    words: tuple[str, ...]
    flags: dict[str, str]

    def get_config(self, size: str) -> ConfigDict:
        """The config that it names, in another size; without words of its own, the default."""
        return listing.module(self.module).get_config(",".join([*self.words, size]))


def of(module: str) -> Iterator[Command]:
    """The trainings and evaluations of a module's docstring, in its order."""
    text = listing.module(module).__doc__.replace("\\\n", " ")
    for line in re.findall(r"^    python (.+)$", text, flags=re.MULTILINE):
        script, *words = shlex.split(line)
        if script not in ("train.py", "eval.py"):
            continue
        flags = dict(word.removeprefix("--").partition("=")[::2] for word in words)
        path, _, said = flags.pop("config", "").partition(":")
        yield Command(script, Path(path).stem if path else "",
                      tuple(word for word in said.split(",") if word not in ("", SIZE)), flags)


def walk(name: str) -> list[Command]:
    """What a docstring says to type for "module:words": commands that name just those words.

    Else the first training and the first evaluation, the words in place of the example's; prose
    says that ("the same for ..."), where `from710` begins, and that `video` has no best.
    """
    module, _, said = name.partition(":")
    words, commands = tuple(filter(None, said.split(","))), list(of(module))
    trainings = [one for one in commands if one.script == "train.py"]
    if not trainings:
        return commands
    exact = [one for one in trainings if set(one.words) == set(words)]
    training = dataclasses.replace((exact or trainings)[0], words=words)
    evaluations = [one for one in commands if one.script == "eval.py"]
    evaluation = next((one for one in evaluations
                       if one.flags["checkpoint"] == training.flags["workdir"]), evaluations[0])
    folder = training.flags["workdir"]
    if not exact:
        folder = "runs/" + re.sub(r"\W", "_", name)
    start = training.flags["config.init_from"]
    if "from710" in words:
        start = "runs/kinetics_classification_kinetics710/best"
    if not training.get_config("tiny").best:
        evaluation.flags["which"] = "last"
    return [dataclasses.replace(training, flags=training.flags | {
                "workdir": folder, "config.init_from": start}),
            dataclasses.replace(evaluation, flags=evaluation.flags | {"checkpoint": folder})]


def datasets(config: ConfigDict) -> set[str]:
    """The folders that a config reads."""
    roots: set[str] = set()
    for stream in (*config.data.streams.values(),
                   *(entry.stream for entry in config.evals.values())):
        sources = stream.split.values() if isinstance(stream.split, ConfigDict) else ()
        roots |= {one.get("root") or stream.get("root") or config.data.root
                  for one in (sources or [stream])}
    return roots
