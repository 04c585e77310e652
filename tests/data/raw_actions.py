"""Tiny datasets of actions in exactly the layout of the published raw files, and their records."""

from pathlib import Path

from raw_media import clip, put, put_csv, wanted


def kinetics(raw: Path) -> dict[str, list[dict]]:
    header = ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
    put_csv(
        raw / "annotations/train.csv",
        [
            header,
            ["testifying", "---QUuC4vJs", "84", "94", "train", "0"],
            ["eating spaghetti", "--3ouPhoy2A", "20", "30", "train", "0"],
        ],
    )
    put_csv(
        raw / "annotations/validate.csv", [header, ["abseiling", "0wR5jVB", "1", "2", "val", "1"]]
    )
    put_csv(
        raw / "annotations/test.csv",
        [["youtube_id", "time_start", "time_end", "split"], ["--6bJUbfpnQ", "17", "27", "test"]],
    )
    put(raw / "train/---QUuC4vJs_000084_000094.mp4", clip(1))
    put(raw / "train/eating spaghetti/--3ouPhoy2A_000020_000030.mp4", clip(2))
    put(raw / "videos/0wR5jVB.mkv", clip(3, ".mkv", 24))
    put(raw / "test/--6bJUbfpnQ_000017_000027.mp4", clip(4))
    return {
        "train": [
            wanted("---QUuC4vJs_000084_000094", clip(1), label="testifying"),
            wanted("--3ouPhoy2A_000020_000030", clip(2), label="eating spaghetti"),
        ],
        "val": [
            wanted(
                "0wR5jVB_000001_000002",
                clip(3, ".mkv", 24),
                label="abseiling",
                start=1.0,
                end=2.0,
            )
        ],
        "test": [wanted("--6bJUbfpnQ_000017_000027", clip(4))],
    }


def kinetics710(raw: Path) -> dict[str, list[dict]]:
    """Three sets that name classes otherwise, and share videos: `both_`, and `leak`, of a test."""
    header = ["label", "youtube_id", "time_start", "time_end", "split"]

    def put_set(folder: str, **splits: list[tuple[str, str]]) -> None:
        for split, rows in splits.items():
            put_csv(raw / folder / f"{split}.csv",
                    [header, *([label, name, "1", "11", split] for label, name in rows)])
            for number, (_, name) in enumerate(rows):
                if name != "gone":
                    put(raw / folder / split / f"{name}_000001_000011.mp4",
                        clip(len(folder) + number))

    put_set("kinetics700", train=[("opening bottle (not wine)", "new"), ("yoga", "both_"),
                                  ("petting animal (not cat)", "gone")],
            val=[("yoga", "v7")], test=[("", "leak")])
    put_set("k600", train=[("Petting animal (not cat)", "gone"), ("chopping vegetables", "leak"),
                           ("chopping vegetables", "six")],
            val=[("Yoga ", "v6"), ("yoga", "v7")])
    put_set("kinetics-400", train=[("opening bottle", "old"), ("yoga", "both_"), ("yoga", "v6")],
            val=[("petting animal - not cat", "v4")])
    put(raw / "k600/train/gone_000001_000011.mp4", clip(20))

    def record(name: str, number: int, label: str) -> dict:
        return wanted(f"{name}_000001_000011", clip(number), label=label)

    return {
        "train": [record("new", 11, "opening bottle (not wine)"), record("both_", 12, "yoga"),
                  record("gone", 20, "petting animal (not cat)"),
                  record("six", 6, "chopping vegetables"),
                  record("old", 12, "opening bottle (not wine)")],
        "val": [record("v7", 11, "yoga"), record("v6", 4, "yoga"),
                record("v4", 12, "petting animal (not cat)")],
    }


def ssv2(raw: Path) -> dict[str, list[dict]]:
    def item(number, label, template, things):
        return {"id": number, "label": label, "template": template, "placeholders": things}

    holding = "Holding [something] next to [something]"
    put(
        raw / "something-something-v2-train.json",
        [
            item("78687", "holding a cup next to a pot", holding, ["a cup", "a pot"]),
            item("42326", "pushing a pen", "Pushing [something] from left to right", ["a pen"]),
        ],
    )
    put(
        raw / "something-something-v2-validation.json",
        [item("74225", "spinning a cube", "Spinning [something]", ["a cube"])],
    )
    put(raw / "something-something-v2-test.json", [{"id": "1420"}])
    for number in (78687, 42326, 74225, 1420):
        put(raw / f"20bn-something-something-v2/{number}.webm", clip(number, ".webm"))
    cup, label = "holding a cup next to a pot", "Holding something next to something"
    return {
        "train": [
            wanted("78687", clip(78687, ".webm"), texts=[cup], label=label),
            wanted(
                "42326",
                clip(42326, ".webm"),
                texts=["pushing a pen"],
                label="Pushing something from left to right",
            ),
        ],
        "val": [
            wanted(
                "74225",
                clip(74225, ".webm"),
                texts=["spinning a cube"],
                label="Spinning something",
            )
        ],
        "test": [wanted("1420", clip(1420, ".webm"))],
    }
