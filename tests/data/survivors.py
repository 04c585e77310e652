"""A small WebVid, and what preparing made of it."""

from pathlib import Path

from raw_media import clip, put, put_csv


def webvid(raw: Path, names: list[str]) -> None:
    rows = [[name, "1_50", f"clip {name}"] for name in names]
    put_csv(raw / "results_2M_train.csv", [["videoid", "page_dir", "name"], *rows])
    for number, name in enumerate(names):
        put(raw / f"videos/1_50/{name}.mp4", clip(number % 3))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(path: Path) -> list[dict[str, str]]:
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0] == ["file", "line", "record", "reason", "what to do", "split"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
