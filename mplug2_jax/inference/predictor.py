"""A model that is loaded once and says of files, batch by batch, what a command asks."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from mplug2_jax import tasks
from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.inference.clips import Batch, Clips, Part, Shape
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import init_params
from mplug2_jax.parallel.cores import cores
from mplug2_jax.parallel.mesh import BATCH, make_mesh, put_batch
from mplug2_jax.preprocess.files import File
from mplug2_jax.preprocess.text import clean_caption
from mplug2_jax.preprocess.tokenizer import load_tokenizer
from mplug2_jax.tasks.base.fetching import fetch

Output = dict[str, np.ndarray]  # a task's, of one file


class Command(NamedTuple):
    """What is asked of files.

    Attributes:
      task: which task answers.
      method: of it, of parameters and a batch, or texts, to arrays.
      unused: modules of it that this needs not.
    """

    task: str
    method: str = "predict"
    unused: tuple[str, ...] = ()


COMMANDS = {"caption": Command("captioning"), "qa": Command("qa"),
            "retrieve": Command("retrieval"),
            "embed": Command("retrieval", "embed", ("text", "fusion")),
            "embed_text": Command("retrieval", "encode_queries", ("vision", "fusion"))}


class Kind(NamedTuple):
    """What is done with one kind of file, plain values.

    Attributes:
      section: of the task, as in a config.
      frames, image_size: of a clip.
      fields: what every row of a batch has beside its clip: the question or the query.
    """

    section: dict[str, Any]
    frames: int
    image_size: int
    fields: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Spec:
    """All that a prediction depends on beside the file: the same in another process or machine.

    Attributes:
      command: of `COMMANDS`.
      question: of "qa".
      folder: of checkpoints; `step` is the newest that is taken.
      model: sizes, as in a config.
      tokenizer: as `load_tokenizer` takes it.
      kinds: by kind of file.
      batch_size: files at once.
    """

    command: str
    question: str
    folder: str
    step: int
    model: dict[str, Any]
    tokenizer: str
    kinds: dict[str, Kind]
    batch_size: int


class Row(NamedTuple):
    """A file of a part, its last or not, and what the task gives of it, or why it cannot be read.
    """

    part: int
    last: bool
    file: File
    kind: str
    output: Output | MediaError


Result = tuple[Batch, list[Output | MediaError]]


class Predictor:
    """A model on this process's own devices, with a task for each kind of file.

    Args:
      spec: what is predicted.
      most: files of each kind at once, at most: smaller batches are not filled up to `batch_size`.
      checkpoints: from which it is loaded, where they are open; all processes of a run must.

    Attributes:
      tasks: by kind of file.
      params: on the mesh.
      rerank: best matches of a query that matching may rerank.
      step: of the checkpoint that could be read.
    """

    def __init__(self, spec: Spec, most: Mapping[str, int],
                 checkpoints: Checkpoints | None = None):
        self.spec = spec
        self.mesh: Mesh = make_mesh(1, -1, 1, jax.local_devices())
        model, tokenizer = ModelConfig.from_mapping(spec.model), load_tokenizer(spec.tokenizer)
        self.tasks = {kind: tasks.make(one.section, model, tokenizer)
                      for kind, one in spec.kinds.items() if kind in most}
        checkpoints = checkpoints or Checkpoints(spec.folder, most=spec.step)
        wanted, self.rerank = needed_params(self.tasks, checkpoints.shapes(), spec.command)
        self.params = checkpoints.first_good(
            lambda: checkpoints.load_params(wanted, self.mesh, averaged=True))
        self.step = checkpoints.latest
        checkpoints.close()
        ways = math.prod(self.mesh.shape[axis] for axis in BATCH)
        self._shapes = {kind: Shape(math.ceil(min(spec.batch_size, most[kind]) / ways) * ways,
                                    one.frames, one.image_size)
                        for kind, one in spec.kinds.items() if kind in most}
        method = COMMANDS[spec.command].method
        self._compute: dict[str, Callable[..., Any]] = {
            kind: jax.jit(getattr(task, method)) for kind, task in self.tasks.items()}

    def clips(self, parts: Iterable[Part], pool: ThreadPoolExecutor) -> Clips:
        """The batches of files, in parts, read ahead by a pool."""
        return Clips(parts, self._shapes, pool, max(self.spec.batch_size, 2 * threads()))

    def rows(self, clips: Iterable[Batch]) -> Iterator[Result]:
        """What the task gives of each file of the batches.

        The device computes a batch while the host looks at the one before it.

        Raises:
          MachineError: the machine refuses what any file needs.
        """
        before: tuple[Batch, Any] | None = None
        with jax.set_mesh(self.mesh):
            for batch in clips:
                computed = self._begun(batch)
                if before is not None:
                    yield before[0], _outputs(*before)
                before = batch, computed
            if before is not None:
                yield before[0], _outputs(*before)

    def _begun(self, batch: Batch) -> Any:
        """Has a batch computed; None where none of its files can be read."""
        shape, usable = self._shapes[batch.kind], np.zeros(self._shapes[batch.kind].rows, bool)
        video = np.zeros((*usable.shape, shape.frames, *[shape.image_size] * 2, 3), np.uint8)
        for row, clip in enumerate(batch.clips):
            if not isinstance(clip, MediaError):
                video[row], usable[row] = clip, True
        if not usable.any():
            return None
        fields = {key: np.repeat(value[None], len(usable), axis=0)
                  for key, value in self.spec.kinds[batch.kind].fields.items()}
        # A batch of the contract with tasks; which record and item a row is of, nobody asks.
        none = np.zeros(len(usable), np.int32)
        return self._compute[batch.kind](self.params, put_batch(
            {"video": video, "example_mask": usable, **fields, "item": none, "index": none},
            self.mesh))

    def embed_text(self, text: str) -> np.ndarray:
        """The features of a text, float32 `[C]`, where the command is "embed_text".

        Raises:
          ValueError: there is no word in it.
        """
        (kind,) = self.tasks
        length = len(self.spec.kinds[kind].fields["text"])
        if not (clean := clean_caption(text, length)):
            raise ValueError(f"{text!r}: no word in it; describe something")
        ids, mask = self.tasks[kind].tokenizer.encode_padded(clean, length)
        with jax.set_mesh(self.mesh):
            computed = self._compute[kind](self.params, ids[None], mask[None])
        return np.asarray(fetch(computed)["text_features"][0], np.float32)

    def line(self, row: Row) -> dict[str, Any]:
        """What is said of a file: plain values, an embedding as float32 `[C]`."""
        file = {"file": str(row.file)}
        if isinstance(row.output, MediaError):
            return file | {"error": str(row.output)}
        if self.spec.command == "embed":
            return file | {"embedding": np.asarray(row.output["visual_features"], np.float32)}
        task: Any = self.tasks[row.kind]  # of those that say something
        said = task.text(row.output)
        if self.spec.command == "qa":
            return file | {"question": self.spec.question, "answer": said}
        score = {"score": float(row.output["score"])} if "score" in row.output else {}
        return file | {"caption": said, **score}


def in_order(results: Iterable[Result]) -> Iterator[Row]:
    """The rows of parts in the order of their files; no more than a part's wait for others."""
    held: dict[int, Row] = {}
    following = 0
    for batch, outputs in results:
        for place, file, output in zip(batch.places, batch.files, outputs, strict=True):
            held[place] = Row(batch.part, place + 1 == batch.size, file, batch.kind, output)
        while following in held:
            yield held.pop(following)
            following += 1
        if following == batch.size:
            following = 0


def threads() -> int:
    """How many decode files: each has a process of its own, and keeps a core busy."""
    return max(4, min(cores(), 64))


def needed_params(jobs: Mapping[str, tasks.Task], stored: dict[str, Any],
                  command: str) -> tuple[dict[str, Any], int]:
    """Shapes of the parameters that a command needs, and how many best matches to rerank.

    Retrieval goes without reranking where the checkpoint has no fusion or no matching head.
    """
    wanted: dict[str, Any] = {}
    rerank = 0
    for task in jobs.values():
        wanted |= jax.eval_shape(lambda model=task.model: init_params(model, jax.random.key(0)))
        rerank = getattr(task.options, "rerank", 0) * (command == "retrieve")
    if "vtm" in wanted.get("heads", {}):
        if rerank and ("fusion" not in stored or "vtm" not in stored.get("heads", {})):
            rerank = 0
            logging.warning("no fusion with a matching head in the checkpoint: not reranked")
        if not rerank:
            wanted.pop("fusion", None)
            wanted["heads"].pop("vtm")
    for module in COMMANDS[command].unused:
        wanted.pop(module, None)
    return wanted, rerank


def _outputs(batch: Batch, computed: Any) -> list[Output | MediaError]:
    """Each file's row of what was computed of a batch."""
    rows = fetch(computed)
    return [clip if isinstance(clip, MediaError) else {key: value[i] for key, value in rows.items()}
            for i, clip in enumerate(batch.clips)]
