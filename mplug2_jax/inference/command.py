"""The command line: what files show, a line of JSON each, or what goes to `--out` in parts."""

import contextlib
import shlex
import sys
from collections.abc import Iterable, Sequence

from absl import flags, logging
from tqdm import tqdm

from mplug2_jax import __version__, launch, places
from mplug2_jax.checkpoints import WHICH as WHICHES
from mplug2_jax.checkpoints import CheckpointError, Checkpoints, open_which
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.lock import locked
from mplug2_jax.inference import jobs, parts
from mplug2_jax.inference.jobs import Job
from mplug2_jax.inference.predictor import COMMANDS, Predictor, Spec
from mplug2_jax.inference.ranking import rank
from mplug2_jax.inference.specs import Given, make_spec, settings_of
from mplug2_jax.inference.written import Line, Lines, Tables, said
from mplug2_jax.parallel import hosts
from mplug2_jax.preprocess.files import File, InTar, find_media, media_kind

CONFIG = launch.define_config("Instead of the checkpoint's config.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A work folder or a checkpoint folder.",
                                 required=True)
WHICH = flags.DEFINE_enum("which", "last", list(WHICHES), "Checkpoint of a work folder: the last, "
                          "or the best by the config's `best`.")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "The vocabulary, where it has been moved: a "
                                "SentencePiece .model, a WordPiece .txt, or bert_uncased.")
OUT = flags.DEFINE_string("out", "", "A file that gets the lines too; of `embed` a folder, which "
                          "gets files of Parquet instead.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Files at once.", lower_bound=1)
FRAMES = flags.DEFINE_integer("frames", None, "Of a video; the config's by default.",
                              lower_bound=1)
PART_FILES = flags.DEFINE_integer("part_files", 1000, "Files of a part of what goes to --out: a "
                                  "part is kept once it is done.", lower_bound=1)
BEAM_RUNNER = flags.DEFINE_string("beam_runner", "", "An Apache Beam runner, whose workers do it.")
BEAM_OPTIONS = flags.DEFINE_string("beam_options", "", "The runner's own, as on its command line.")


def command() -> None:
    """Runs it as the program."""
    launch.main(main, ("COMMAND", "ARGUMENT..."), distributed=True)


def main(command: str, *arguments: str) -> None:
    given, text = parse(command, arguments)
    check_flags(command)
    if command == "embed_text":
        embed_texts(given, open_which(CHECKPOINT.value, WHICH.value))
        return
    files = find_media(given) if hosts.is_first() else []
    written = check_out(command, (*given, *files)) if OUT.value else None
    checkpoints = open_which(CHECKPOINT.value, WHICH.value)
    spec = make_spec(command, text, checkpoints, given_beside())
    with tqdm(total=len(files), unit="file", disable=None) as bar:
        if command == "retrieve":
            failed = retrieve(spec, checkpoints, files, bar)
        elif written is None:
            failed = say(spec, checkpoints, files, bar)
        else:
            failed = run_job(spec, checkpoints, files, written, bar)
    if failed and failed == len(files):
        raise SystemExit(1)


def given_beside() -> Given:
    """What the flags say beside the command."""
    return Given(CHECKPOINT.value, CONFIG.value, TOKENIZER.value, FRAMES.value, BATCH_SIZE.value)


def say(spec: Spec, checkpoints: Checkpoints, files: Sequence[File], bar: tqdm) -> int:
    """A line a file as it comes; how many could not be read."""
    plan, failed = parts.divide(files, PART_FILES.value, {}), 0

    def line(one: Line) -> None:
        nonlocal failed
        failed += "error" in one
        write_line(one)
        bar.update()

    jobs.work(Predictor(spec, plan.most, checkpoints), parts.cut(files, plan.size), line)
    return failed


def embed_texts(texts: Sequence[str], checkpoints: Checkpoints) -> None:
    """A line a text, its embedding as a list: those of files are compared with it."""
    spec = make_spec("embed_text", texts[0], checkpoints, given_beside())
    predictor = Predictor(spec, {"image": 1}, checkpoints)
    for text in texts:
        write_line({"text": text, "embedding": predictor.embed_text(text)})


def run_job(spec: Spec, checkpoints: Checkpoints, files: Sequence[File],
            written: Lines | Tables, bar: tqdm) -> int:
    """What goes to `--out`, part by part, by all processes; how many files could not be read.

    A single process prints its lines, too, those of files; what is done already is not repeated.
    """
    prints = not hosts.several() and isinstance(written, Lines)
    hosts.agree({"mplug2_jax": __version__, "code": launch.code(), "settings": settings_of(spec)})
    keeps = hosts.is_first() and not paths.in_bucket(written.folder)
    with locked(*written.lock) if keeps else contextlib.nullcontext():
        plan = parts.divide(files, PART_FILES.value, settings_of(spec)) if files else None
        job = Job.begin(written, plan, files)
        missing = hosts.said_by_first(job.missing() if hosts.is_first() else [])
        if len(missing) < job.plan.parts:
            logging.info("%s: %d of %d parts are done", written.folder,
                         job.plan.parts - len(missing), job.plan.parts)
        bar.update(len(files) - min(len(files), len(missing) * job.plan.size))
        if BEAM_RUNNER.value:
            jobs.spread(job, spec, BEAM_RUNNER.value, shlex.split(BEAM_OPTIONS.value))
        elif missing:
            predictor = Predictor(spec, job.plan.most, checkpoints)
            if predictor.step != spec.step:
                raise CheckpointError(f"{spec.folder}/{spec.step} is damaged: move it away")

            def line(one: Line) -> None:
                if prints:
                    write_line(one)
                bar.update()

            job.work(predictor, missing, line)
        return job.finish() if hosts.is_first() else 0


def retrieve(spec: Spec, checkpoints: Checkpoints, files: Sequence[File], bar: tqdm) -> int:
    """A line a file, best first; how many could not be read."""
    files = sorted(files, key=media_kind, reverse=True)  # none waits for files of another kind
    plan = parts.divide(files, PART_FILES.value, {})
    failed: list[Line] = []

    def line(one: Line | None) -> None:
        bar.update()
        if one is not None:
            failed.append(one)
            write_line(one)

    lines = rank(Predictor(spec, plan.most, checkpoints), parts.cut(files, plan.size), line)
    for one in lines:
        write_line(one)
    if OUT.value:
        with places.named(OUT.value):
            paths.write(paths.parse(OUT.value), "".join(
                said(one) + "\n" for one in (*failed, *lines)))
    return len(failed)


def write_line(line: Line) -> None:
    """Prints a line of JSON, past the bar of progress; BrokenPipeError: nobody reads it."""
    tqdm.write(said(line), file=sys.stdout)
    sys.stdout.flush()


def parse(command: str, arguments: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Paths, and the question or query.

    Raises:
      ValueError: an unknown command, or one without paths or text.
    """
    if command not in COMMANDS:
        raise ValueError(f"command {command!r}: expected {', '.join(COMMANDS)}")
    if command in ("caption", "embed", "embed_text"):
        return arguments, ""
    if len(arguments) < 2:
        order = {"qa": 'FILE... "QUESTION"', "retrieve": '"QUERY" FILE...'}
        raise ValueError(f"{command}: expected {order[command]}; got {arguments[0]!r} alone")
    if command == "qa":
        return arguments[:-1], arguments[-1]
    return arguments[1:], arguments[0]


def check_flags(command: str) -> None:
    """ConfigError where several processes, or Beam's, cannot do what is asked."""
    if BEAM_OPTIONS.value and not BEAM_RUNNER.value:
        raise ConfigError("--beam_options: give --beam_runner, too")
    if OUT.value and command == "embed_text":
        raise ConfigError("--out: embed_text prints its lines; give none")
    if not hosts.several() and not BEAM_RUNNER.value:
        return
    if hosts.several() and BEAM_RUNNER.value:
        raise ConfigError("--beam_runner: Beam starts the workers itself; run one process")
    if command in ("retrieve", "embed_text"):
        raise ConfigError(f"{command}: run one process; `embed` is for many files")
    if not OUT.value:
        raise ConfigError("--out is missing: several processes write what they find; give it")


def check_out(command: str, given: Iterable[str | File]) -> Lines | Tables:
    """How `--out` is written.

    Raises:
      ConfigError: it cannot be, or would replace what is `given`.
    """
    out = paths.parse(OUT.value, "--out")
    if hosts.is_first():
        if command == "embed":
            places.check_folder("--out", OUT.value)
        else:
            places.check_file("--out", OUT.value)
        places_of = (one.tar if isinstance(one, InTar) else paths.parse(one) for one in given)
        if any(out.resolve() == one.resolve() for one in places_of):
            raise ConfigError(f"--out={OUT.value}: is one of the files that are looked at; give "
                              "another name")
    return Tables(out) if command == "embed" else Lines(out)
