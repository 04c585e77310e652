"""The command line of the package; see its docstring."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import yaml
from absl import flags
from ml_collections import ConfigDict

from mplug2_jax import launch, tasks
from mplug2_jax.checkpoints import Checkpoints, write_params
from mplug2_jax.checkpoints.manager import module_of
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import hugging_face, official
from mplug2_jax.convert.fitting import parameter_shapes
from mplug2_jax.convert.layout import WeightsError, nest, shorten
from mplug2_jax.convert.official import Converted
from mplug2_jax.convert.verify import table, verify
from mplug2_jax.convert.weights_file import Weights, read_weights
from mplug2_jax.model.config import HOW, MODULES, ModelConfig
from mplug2_jax.model.mplug2 import HEADS
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.parallel.sharding import path_name
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED

CONFIG = launch.define_config("The run's config, of this project.")
YAML = flags.DEFINE_string("yaml", None, "official: the release's own config instead ...")
BERT_JSON = flags.DEFINE_string("bert_json", None, "official: ... with its BERT json.")
OUT = flags.DEFINE_string("out", None, "Folder to write the checkpoint to.")
WITH = flags.DEFINE_string("with", None, "bert, clip: another converted folder, whose modules are "
                           "written beside the new ones.")
DROP = flags.DEFINE_multi_string(
    "drop", [], "official, verify: a regular expression of names in the file that are left out; "
    "it may be given several times.")
TEACHER = flags.DEFINE_bool("teacher", False, "official: write the momentum copies, too, as the "
                            "teacher of a pretraining that starts from --out.")
HUGGING_FACE = {"bert": hugging_face.convert_bert, "clip": hugging_face.convert_clip}
# Keys of a model by which weights mean the same, whatever they say.
HARMLESS = (*HOW, "dtype", "scan", "dropout", "stochastic_depth")
COMMANDS = ("official", *HUGGING_FACE, "verify")


def main(command: str, file: str) -> None:
    if command not in COMMANDS:
        raise ValueError(f"command {command!r}: expected one of {', '.join(COMMANDS)}")
    check_flags(command)
    if command == "verify":
        check(file)
        return
    if not OUT.value:
        raise ValueError("--out: give the folder to write the checkpoint to")
    if (out := paths.parse(OUT.value, "--out")).is_dir() and any(out.iterdir()):
        raise ValueError(f"--out={OUT.value}: not empty; give another folder")
    tensors = read_weights(file)
    model, config = read_config(command, file, tensors)
    if WITH.value:
        check_beside(WITH.value, model)
    notes = [] if command != "bert" else hugging_face.check_vocabulary(
        file, config.get("data", {}).get("tokenizer", BERT_UNCASED))
    try:
        converted = (HUGGING_FACE[command](tensors, model, file) if command in HUGGING_FACE else
                     official.convert(tensors, model, file, DROP.value, TEACHER.value))
    except WeightsError as error:
        raise WeightsError(f"{error}{'; ' * bool(tensors.left_out)}{left_out(tensors)}") from None
    converted = converted._replace(notes=[*converted.notes, *notes])
    params = nest(converted.params)
    if WITH.value:
        params = beside(WITH.value, params)
    print(summary(converted))
    if tensors.left_out:
        print(left_out(tensors))
    if command == "official":
        print(heads_summary(converted))
    state = {} if converted.teacher is None else {"teacher": nest(converted.teacher)}
    write_params(OUT.value, params, config, state)
    print(f"wrote {OUT.value}: {', '.join(sorted(params))}" + "".join(f"; {x}" for x in state))


def check_flags(command: str) -> None:
    """Raises ValueError where a flag was given that a command has no use for."""
    config, release = CONFIG.value is not None, YAML.value or BERT_JSON.value
    for flag, wrong, why in (
            ("drop", DROP.value and command in HUGGING_FACE,
             f"{command} has no use for it; its rules say what is ignored"),
            ("teacher", TEACHER.value and command != "official",
             f"{command} has no momentum copies"),
            ("yaml, --bert_json", release and command != "official",
             f"{command} has no use for the release's own config"),
            ("yaml, --bert_json", release and config, "they stand in the place of --config; give "
             "one or the other"),
            ("config", config and command == "verify", "verify takes that of the golden set"),
            ("out", OUT.value and command == "verify", "verify writes nothing"),
            ("with", WITH.value and command not in HUGGING_FACE,
             f"{command} has no use for it: it is for {' and '.join(HUGGING_FACE)}")):
        if wrong:
            raise ValueError(f"--{flag}: {why}")


def left_out(tensors: Weights) -> str:
    """What of the table of weights is no tensor, in a line."""
    if not tensors.left_out:
        return ""
    name, why = next(iter(tensors.left_out.items()))
    return (f"not tensors, left out: {len(tensors.left_out)}: "
            f"{shorten(list(tensors.left_out))} ({name} is {why})")


def check(prefix: str) -> None:
    """Prints how a golden set compares; ends with code 1 where an array fails."""
    rows = verify(prefix, DROP.value)
    print(table(rows))
    failed = [row.name for row in rows if row.fault]
    print(f"{prefix}: " + (f"FAILED: {', '.join(failed)}" if failed else
                           f"all {len(rows)} arrays pass"))
    if failed:
        raise SystemExit(1)


def read_config(command: str, file: str, tensors: Any) -> tuple[ModelConfig, dict[str, Any]]:
    """The model's config and the run's as plain values: of --config, or of the release's files."""
    if CONFIG.value is not None:
        config = CONFIG.value.to_dict()
        if config.get("task"):
            tasks.complete(config)  # a default may change; the checkpoint's config may not
        return ModelConfig.from_mapping(CONFIG.value.model), launch.plain(ConfigDict(config))
    if command != "official" or not (YAML.value and BERT_JSON.value):
        raise ConfigError("--config: give the run's config"
                          + (", or both --yaml and --bert_json" if command == "official" else ""))
    release, bert = (read_mapping(path) for path in (YAML.value, BERT_JSON.value))
    model = official.config_from_release(release, bert, tensors, file)
    return model, {"model": dataclasses.asdict(model)}


def read_mapping(path: str) -> Mapping[str, Any]:
    """A YAML or JSON file that holds a table.

    Raises:
      ConfigError: it holds something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())  # JSON is YAML
    except (yaml.YAMLError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path}: not valid: {why}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a table of keys and values")
    return content


def beside(folder: str, params: dict[str, Any]) -> dict[str, Any]:
    """`params` and another checkpoint's modules.

    Raises:
      ValueError: both have a module.
    """
    source = Checkpoints(folder)
    shapes = source.shapes()
    if both := sorted(set(shapes) & set(params)):
        raise ValueError(f"--with={folder}: also holds {', '.join(both)}")
    found = source.first_good(lambda: source.load_params(shapes, make_mesh(1, -1, 1)))
    source.close()
    return params | found


def check_beside(folder: str, config: ModelConfig) -> None:
    """Raises ConfigError at the first key or shape in which a checkpoint is of another model."""
    source = Checkpoints(folder)
    stored, shapes = source.meta()["config"].get("model"), source.shapes()
    source.close()
    theirs, ours = vars(ModelConfig.from_mapping(stored)) if stored else {}, vars(config)
    for key in theirs:
        if key not in HARMLESS and theirs[key] != ours[key]:
            raise ConfigError(f"--with={folder}: model.{key} = {theirs[key]!r} there, "
                              f"{ours[key]!r} in --config")
    found = {path_name(path): tuple(x.shape) for path, x in
             jax.tree_util.tree_leaves_with_path(shapes)}
    held = {module_of(name) for name in found}
    wanted = {name: shape for name, shape in parameter_shapes(config, MODULES, HEADS).items()
              if module_of(name) in held}
    known = {module_of(name) for name in wanted}  # others are a modality's that was registered
    for name in sorted(wanted.keys() | {name for name in found if module_of(name) in known}):
        if found.get(name) != wanted.get(name):
            raise ConfigError(f"--with={folder}: {name} is {found.get(name, 'not')} there, "
                              f"{wanted.get(name, 'not')} in the model of --config")


def summary(converted: Converted) -> str:
    """What was mapped, ignored and left fresh, for the eye."""
    mapped = Counter(name.split(".")[0] for name in converted.layout)
    lines = ["mapped: " + ", ".join(f"{name} {n}" for name, n in mapped.items())
             + f" -> {len(converted.params) - len(converted.fresh)} parameters, "
             f"{sum(x.size for x in converted.params.values()):,} numbers"]
    lines += [f"ignored, {rule}: {len(names)} ({names[0]}{', ...' if names[1:] else ''})"
              for rule, names in converted.ignored.items()]
    if converted.dropped:
        lines.append(f"dropped: {len(converted.dropped)}: {shorten(list(converted.dropped))}")
    lines += [f"note: {note}" for note in converted.notes]
    lines.append(f"left at the initial value: {', '.join(converted.fresh) or 'nothing'}")
    return "\n".join(lines)


def heads_summary(converted: Converted) -> str:
    """Which heads of pretraining a checkpoint has."""
    there = [f"heads/{head}" for head in HEADS if head in converted.heads]
    missing = [f"heads/{head}" for head in HEADS if head not in converted.heads]
    advice = (f"; not in the file: {', '.join(missing)}, to be named in allow_new by a run that "
              "needs them" if missing else "")
    return f"heads: {', '.join(there) or 'none'}{advice}"


if __name__ == "__main__":
    launch.main(main, ("COMMAND", "FILE"))
