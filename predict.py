"""Says what images and videos show: captions, answers, the best matches of a text.

    python predict.py caption clip.mp4 --checkpoint=runs/demo
    python predict.py qa clip.mp4 "what is he doing?" --checkpoint=runs/demo
    python predict.py retrieve "a red three moving left" clips/*.mp4 --checkpoint=runs/demo

Files may be images, videos, folders of them, and `.txt` lists of paths, mixed; a list's relative
paths are of its own folder. Prints one line of JSON each; a file that cannot be read gets a line
with its `error` instead.
"""

import bisect
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from configs import common, located, msrvtt_caption, msrvtt_qa, stored
from mplug2_jax import launch, places, tasks
from mplug2_jax.checkpoints import WHICH as WHICHES
from mplug2_jax.checkpoints import open_which
from mplug2_jax.contracts.errors import ConfigError, MediaError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import Stream, wordings
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import init_params
from mplug2_jax.parallel.mesh import BATCH, make_mesh, put_batch
from mplug2_jax.preprocess import guard
from mplug2_jax.preprocess.files import find_media, load_clip, media_kind
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED, PACKAGED, Tokenizer, load_tokenizer
from mplug2_jax.tasks import Task

CONFIG = launch.define_config("Instead of the checkpoint's config.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A work folder or a checkpoint folder.")
WHICH = flags.DEFINE_enum("which", "last", list(WHICHES), "Checkpoint of a work folder: the last, "
                          "or the best by the config's `best`.")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "The vocabulary, where it has been moved: a "
                                "SentencePiece .model, a WordPiece .txt, or bert_uncased.")
OUT = flags.DEFINE_string("out", None, "A file that gets the lines too.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Files at once.", lower_bound=1)
FRAMES = flags.DEFINE_integer("frames", None, "Of a video; the config's by default.",
                              lower_bound=1)
flags.mark_flag_as_required("checkpoint")

COMMANDS = {"caption": "captioning", "qa": "qa", "retrieve": "retrieval"}
FALLBACK_FRAMES, FALLBACK_LENGTH = 16, 25  # as released
THREADS = 4  # that decode files while the device computes


class Job(NamedTuple):
    """What is done with one kind of file.

    Attributes:
      task: ready to predict.
      frames, image_size: of a clip.
      fields: what every row of a batch has beside its clip: the question or the query.
    """

    task: Task
    frames: int
    image_size: int
    fields: dict[str, np.ndarray]


class Match(NamedTuple):
    """A file of the gallery: its similarity to the query, and its row while it may be reranked."""

    file: str
    kind: str
    score: float
    output: dict[str, np.ndarray] | None


class Lines:
    """The lines of JSON that are printed, and written to `--out`.

    Attributes:
      failed: files that could not be read.
    """

    def __init__(self, out: Any):
        self._out, self.failed = out, 0

    def write(self, line: dict[str, Any]) -> None:
        """One line, past the bar of progress.

        Raises:
          ConfigError: it cannot be written to `--out`. BrokenPipeError: nobody reads it.
        """
        for stream in filter(None, (sys.stdout, self._out)):
            try:
                tqdm.write(json.dumps(line), file=stream)
                stream.flush()
            except OSError as error:
                if stream is sys.stdout:
                    raise
                raise ConfigError(f"--out={OUT.value}: {launch.one_line(error)}; give another "
                                  "place") from None

    def fail(self, file: Path, error: MediaError) -> None:
        """The line of a file that cannot be read."""
        self.failed += 1
        logging.warning("%s: %s", file, error)
        self.write({"file": str(file), "error": str(error)})


def main(command: str, *arguments: str) -> None:
    paths, text = parse(command, arguments)
    files = find_media(paths)
    if OUT.value:
        check_out(OUT.value, (*paths, *files))
    checkpoints = open_which(CHECKPOINT.value, WHICH.value)
    config = CONFIG.value or located.located(stored.completed(checkpoints.meta()), CHECKPOINT.value)
    model = ModelConfig.from_mapping(config.model)
    tokenizer = load_tokenizer(find_vocabulary(config, checkpoints.folder))
    by_kind: dict[str, list[Path]] = {}
    for file in files:
        by_kind.setdefault(media_kind(file), []).append(file)
    jobs = {kind: make_job(COMMANDS[command], kind, text, config, model, tokenizer)
            for kind in by_kind}
    mesh = make_mesh(1, -1, 1)
    wanted, rerank = needed_params(jobs, checkpoints.shapes())
    params = checkpoints.first_good(lambda: checkpoints.load_params(wanted, mesh, averaged=True))
    checkpoints.close()
    out = open(OUT.value, "w") if OUT.value else None
    lines = Lines(out)
    with (jax.set_mesh(mesh), tqdm(total=len(files), unit="file", disable=None) as bar,
          guard.calling(THREADS) as pool):
        rows = ((by_kind[kind][int(output["index"])], kind, output)
                for kind, job in jobs.items()
                for output in job.task.outputs(params, make_batches(
                    by_kind[kind], job, mesh, pool, lines.fail, bar.update)))
        if command == "retrieve":
            rank(rows, jobs, params, rerank, lines)
        else:
            say(rows, jobs, text, lines)
    if out:
        out.close()
    if lines.failed == len(files):
        raise SystemExit(1)


Rows = Iterator[tuple[Path, str, dict[str, np.ndarray]]]  # file, its kind, the task's output


def say(rows: Rows, jobs: dict[str, Job], question: str, lines: Lines) -> None:
    """A line a file as it comes: its caption, or the answer to the question."""
    for file, kind, output in rows:
        said = jobs[kind].task.text(output)
        if question:
            lines.write({"file": str(file), "question": question, "answer": said})
        else:
            score = {"score": float(output["score"])} if "score" in output else {}
            lines.write({"file": str(file), "caption": said, **score})


def rank(rows: Rows, jobs: dict[str, Job], params: Any, rerank: int, lines: Lines) -> None:
    """A line a file, best first; of the `rerank` best the rows are kept meanwhile."""
    found: list[Match] = []  # best first, with their rows
    others: list[Match] = []
    for file, kind, output in rows:
        similarity = float(output["visual_features"] @ output["text_features"])
        bisect.insort(found, Match(str(file), kind, similarity, output),
                      key=lambda match: -match.score)
        if len(found) > rerank:
            others.append(found.pop()._replace(output=None))
    ranked = reranked(found, jobs, params) + sorted(others, key=lambda match: -match.score)
    for place, match in enumerate(ranked, 1):
        lines.write({"rank": place, "file": match.file, "score": match.score})


def parse(command: str, arguments: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Paths, and the question or query.

    Raises:
      ValueError: an unknown command, or one without paths or text.
    """
    if command not in COMMANDS:
        raise ValueError(f"command {command!r}: expected {', '.join(COMMANDS)}")
    if command == "caption":
        return arguments, ""
    if len(arguments) < 2:
        order = {"qa": 'FILE... "QUESTION"', "retrieve": '"QUERY" FILE...'}
        raise ValueError(f"{command}: expected {order[command]}; got {arguments[0]!r} alone")
    if command == "qa":
        return arguments[:-1], arguments[-1]
    return arguments[1:], arguments[0]


def check_out(path: str, given: Iterable[str | Path]) -> None:
    """ConfigError where the lines cannot be written there, or would replace what is `given`."""
    out = places.check_file("--out", path)
    if any(out.resolve() == Path(one).resolve() for one in given):
        raise ConfigError(f"--out={path}: is one of the files that are looked at; give another "
                          "name")


def find_vocabulary(config: ConfigDict, folder: Path) -> str | Path:
    """`--tokenizer`, else one beside the checkpoint, the config's, or one of its own data; where it
    states none, as that of converted weights, BERT's own if it has as many pieces.

    Raises:
      ValueError: none of them.
    """
    if TOKENIZER.value:
        return TOKENIZER.value
    stated = config.get("data", ConfigDict()).get("tokenizer", "")
    if stated in PACKAGED:
        return stated
    names = [Path(stated).name] if stated else ["vocab.model", "vocab.txt"]
    own = (Path(CHECKPOINT.value), folder, located.work_folder(folder))
    beside, inside = ([place / name for place in folders for name in names]
                      for folders in (own, [place / located.DATA for place in own]))
    for path in (*beside, *([Path(stated)] if stated else []), *inside):
        if path.is_file():
            return path
    fits = load_tokenizer(BERT_UNCASED).vocab_size == config.model.vocab_size
    if fits and not stated:
        return BERT_UNCASED
    raise ValueError(f"no vocabulary {stated or 'in the config'}, nor {' or '.join(names)} in "
                     f"{CHECKPOINT.value}: give --tokenizer=FILE"
                     + f", or --tokenizer={BERT_UNCASED} if it was BERT's own" * fits)


def make_job(name: str, kind: str, text: str, config: ConfigDict, model: ModelConfig,
             tokenizer: Tokenizer) -> Job:
    """The task `name` on files of a kind, under the options that the config evaluates it with.

    Raises:
      ValueError: the text has no word; ConfigError: options that cannot be run.
    """
    options, stream = choose(config, model, name, kind)
    frames = 1
    if kind == "video":
        frames = FRAMES.value or (stream.frames if stream.frames > 1 else FALLBACK_FRAMES)
    fields = {}
    field, clean = {"retrieval": ("text", clean_caption)}.get(name, ("prompt", clean_question))
    length = min(getattr(stream, f"{field}_length") or FALLBACK_LENGTH, model.max_positions)
    if name != "captioning" and not clean(text, length).strip():
        raise ValueError(f"{text!r}: no word in it; ask or describe something")
    if name != "captioning" or stream.prompt_length:  # captions are asked by an instruction alone
        if field == "prompt":
            text = f"{wordings(stream.instruction)[0]} {text}".strip(" ")
        ids, mask = tokenizer.encode_padded(clean(text, length), length)
        fields = {field: ids, f"{field}_mask": mask}
    return Job(tasks.make(options, model, tokenizer), frames, stream.image_size, fields)


def choose(config: ConfigDict, model: ModelConfig, name: str,
           kind: str) -> tuple[ConfigDict, Stream]:
    """Section and stream of a task: of the evaluation that fits, first one of this kind of file.

    Without such an evaluation: the task and a stream that the config trains. A config of sizes
    alone comes of converting a release: its recipes are `configs/msrvtt_*.py`.
    """
    pairs = [(entry.task, entry.stream) for entry in config.get("evals", ConfigDict()).values()
             if entry.task.name == name]
    if not pairs and "task" in config:
        section = config.task if config.task.name == name else common.task(name)
        pairs = [(section, stream) for stream in config.data.streams.values()
                 if stream.get("frames", 0)]
    if not pairs:
        recipes = {"captioning": msrvtt_caption, "qa": msrvtt_qa}
        section = recipes[name].get_config().task if name in recipes else common.task(name)
        pairs = [(section, common.stream("", 1, image_size=model.image_size))]
    streams = [(section, read(Stream, dict(stream.items()), "stream")) for section, stream in pairs]
    return min(streams, key=lambda pair: (pair[1].frames > 1) != (kind == "video"))


def needed_params(jobs: dict[str, Job], stored: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Shapes of the parameters that the jobs need, and how many best matches to rerank.

    Retrieval goes without reranking where the checkpoint has no fusion or no matching head.
    """
    wanted, rerank = {}, 0
    for job in jobs.values():
        wanted |= jax.eval_shape(lambda model=job.task.model: init_params(model, jax.random.key(0)))
        rerank = getattr(job.task.options, "rerank", 0)
    if "vtm" in wanted.get("heads", {}):
        if "fusion" not in stored or "vtm" not in stored.get("heads", {}):
            rerank = 0
            logging.warning("no fusion with a matching head in the checkpoint: not reranked")
        if not rerank:
            wanted.pop("fusion")
            wanted["heads"].pop("vtm")
    return wanted, rerank


def make_batches(files: list[Path], job: Job, mesh: Mesh, pool: ThreadPoolExecutor,
                 fail: Callable[[Path, MediaError], None], done: Callable[[int], Any],
                 ) -> Iterator[dict[str, jax.Array]]:
    """Batches of one shape on the devices, the next one decoded meanwhile.

    Args:
      files: of one kind; `index` is the place among them.
      job: what a clip is, and the text beside it.
      mesh: over which the rows are spread; their number is rounded up to what it divides.
      pool: decodes.
      fail: told of files that cannot be read; their rows are filling.
      done: told how many files a batch was made of, after it was used.

    Raises:
      MachineError: the machine refuses what any file needs.
    """
    ways = math.prod(mesh.shape[axis] for axis in BATCH)
    rows = math.ceil(min(BATCH_SIZE.value, len(files)) / ways) * ways
    fields = {key: np.repeat(value[None], rows, axis=0) for key, value in job.fields.items()}

    def load(file: Path) -> np.ndarray | MediaError:
        try:
            return load_clip(file, job.frames, job.image_size)
        except MediaError as error:
            return error

    coming = [pool.submit(load, file) for file in files[:rows]]
    for start in range(0, len(files), rows):
        clips, coming = [clip.result() for clip in coming], [
            pool.submit(load, file) for file in files[start + rows:start + 2 * rows]]
        video = np.zeros((rows, job.frames, job.image_size, job.image_size, 3), np.uint8)
        usable = np.zeros(rows, bool)
        for row, clip in enumerate(clips):
            if isinstance(clip, MediaError):
                fail(files[start + row], clip)
            else:
                video[row], usable[row] = clip, True
        if usable.any():
            yield put_batch(
                {"video": video, "example_mask": usable, **fields,
                 "item": np.zeros(rows, np.int32),
                 "index": np.arange(start, start + rows, dtype=np.int32)}, mesh)
        done(len(clips))


def reranked(matches: list[Match], jobs: dict[str, Job], params: Any) -> list[Match]:
    """Matches as their task reranks them, by what matching says, best first."""
    result = []
    for kind, job in jobs.items():  # one at a time, for clips of other lengths have other shapes
        of_kind = [match for match in matches if match.kind == kind]
        if not of_kind:
            continue
        outputs = {key: np.stack([match.output[key] for match in of_kind])
                   for key in ("visual", "text", "text_mask")}
        pairs = np.repeat(np.arange(len(of_kind))[:, None], 2, axis=1)
        said = job.task.match_pairs(params, outputs, pairs)
        result += [match._replace(score=float(job.task.rescored(match.score, more)))
                   for match, more in zip(of_kind, said, strict=True)]
    return sorted(result, key=lambda match: -match.score)


if __name__ == "__main__":
    launch.main(main, ("COMMAND", "ARGUMENT..."))
