"""The jsonl files of the original release: captions, questions or retrieval, one line each."""

from collections.abc import Iterable

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_jsonl, without_suffix
from mplug2_jax.contracts.errors import DataError

_NAMES = ("video_id", "clip_name", "video")
# The release's documentation says `golden_caption`, its files `golden_captions`.
_CAPTIONS = ("golden_captions", "golden_caption", "caption")


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Each `<split>.jsonl` of the folder is a split; the lines of a video make one record."""
    paths = {}
    for path in sorted(raw.root.glob("*.jsonl")):
        paths["".join(c if c.isalnum() else "_" for c in path.stem)] = path
    if not paths:
        raise DataError(f"--raw={raw.root} holds no <split>.jsonl")

    def entries(path):
        def name_of(line: dict) -> str:
            for key in _NAMES:
                if key in line:
                    return without_suffix(str(line[key]))
            raise DataError(f"{path}: a line has none of {', '.join(_NAMES)}: it has {list(line)}")

        for name, lines in group_by(read_jsonl(path), name_of).items():
            texts, questions = [], []
            for line in lines:
                texts += _texts(line)
                if "question" in line:
                    questions.append(_question(line))
            if not texts and not questions:
                raise DataError(
                    f"{path}: the lines of {name} have neither "
                    f"{', '.join(_CAPTIONS)} nor question and answer"
                )
            fields = {"texts": texts, "questions": questions}
            yield Entry(name, "video", raw.video(name), fields)

    return {split: entries(path) for split, path in paths.items()}


def _texts(line: dict) -> list[str]:
    for key in _CAPTIONS:
        if key in line:
            return line[key] if isinstance(line[key], list) else [line[key]]
    return []


def _question(line: dict) -> dict:
    answer = line.get("answer", "")
    made = {"question": line["question"], "answer": answer}
    if isinstance(answer, list):
        made |= {"answer": answer[0] if answer else "", "answers": answer}
    number = line.get("question_id", line.get("id"))
    return made if number is None else made | {"id": str(number)}


DATASETS = (Dataset("release_jsonl", "jsonl files of the original release", "video", read),)
