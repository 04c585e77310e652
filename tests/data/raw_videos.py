"""Tiny video datasets in exactly the layout of the published raw files, and their records."""

import functools
import json
from pathlib import Path

from raw_media import clip, put, put_csv, wanted


def msrvtt(raw: Path) -> dict[str, list[dict]]:
    def video(number, split):
        return {
            "video_id": f"video{number}",
            "category": 9,
            "url": "https://www.youtube.com/watch?v=9lZi22qLlEo",
            "start time": 137.72,
            "end time": 149.44,
            "split": split,
            "id": number,
        }

    def sentence(number, video, caption):
        return {"caption": caption, "video_id": f"video{video}", "sen_id": number}

    info = {"contributor": "Microsoft MSM group", "version": "1.0"}
    put(
        raw / "train_val_videodatainfo.json",
        {
            "info": info,
            "videos": [video(0, "train"), video(2, "validate"), video(1, "train")],
            # Not sorted: the order of captions is that of `sen_id`.
            "sentences": [
                sentence(3, 0, "second of zero"),
                sentence(1, 0, "first of zero"),
                sentence(2, 1, "one"),
                sentence(0, 2, "two"),
            ],
        },
    )
    put(
        raw / "test_videodatainfo.json",
        {"info": info, "videos": [video(3, "test")], "sentences": [sentence(9, 3, "three")]},
    )
    put(raw / "TrainValVideo/video0.mp4", clip(0))
    put(raw / "TrainValVideo/video1.avi", clip(1, ".avi"))
    put(raw / "TrainValVideo/video2.webm", clip(2, ".webm"))
    put(raw / "TestVideo/video3.mkv", clip(3, ".mkv"))
    zero = ["first of zero", "second of zero"]
    return {
        "train": [
            wanted("video0", clip(0), texts=zero, group="9"),
            wanted("video1", clip(1, ".avi"), texts=["one"], group="9"),
        ],
        "val": [wanted("video2", clip(2, ".webm"), texts=["two"], group="9")],
        "test": [wanted("video3", clip(3, ".mkv"), texts=["three"], group="9")],
    }


def msrvtt_1ka(raw: Path) -> dict[str, list[dict]]:
    videos = [{"video_id": f"video{n}", "category": n, "split": "train"} for n in (7, 8, 9)]
    sentences = [
        {"caption": f"{word} of {n}", "video_id": f"video{n}", "sen_id": 2 * n + k}
        for n in (7, 8, 9)
        for k, word in enumerate(("first", "second"))
    ]
    put(raw / "annotation/MSRVTT_data.json", {"videos": videos, "sentences": sentences})
    put(raw / "annotation/MSRVTT_train.9k.csv", "video_id\nvideo9\nvideo7\n")
    put(
        raw / "annotation/MSRVTT_JSFUSION_test.csv",
        'key,vid_key,video_id,sentence\nret0,msr9770,video8,"a man, talking"\n',
    )
    for n in (7, 8, 9):
        put(raw / f"videos/all/video{n}.mp4", clip(n))
    return {
        "train": [
            wanted("video9", clip(9), texts=["first of 9", "second of 9"], group="9"),
            wanted("video7", clip(7), texts=["first of 7", "second of 7"], group="7"),
        ],
        "test": [wanted("video8", clip(8), texts=["a man, talking"], group="8")],
    }


def _qa(raw: Path, extra: dict) -> None:
    def item(number, video, question, answer):
        made = {"id": number, "video_id": video, "question": question, "answer": answer}
        return made | extra

    put(
        raw / "train_qa.json",
        [
            item(0, 6, "what is shown?", "a cat"),
            item(1, 5, "who runs?", "man"),
            item(2, 6, "what moves?", "tail"),
        ],
    )
    put(raw / "val_qa.json", [item(3, 8, "how many?", "two")])
    put(raw / "test_qa.json", [item(4, 9, "where is it?", "kitchen")])


def _qa_wanted(name: str, medium, **fields) -> dict[str, list[dict]]:
    def question(number, text, answer):
        return {"id": number, "question": text, "answer": answer}

    six = [question("0", "what is shown?", "a cat"), question("2", "what moves?", "tail")]
    return {
        "train": [
            wanted(f"{name}6", medium(6), questions=six, **fields),
            wanted(f"{name}5", medium(5), questions=[question("1", "who runs?", "man")], **fields),
        ],
        "val": [
            wanted(f"{name}8", medium(8), questions=[question("3", "how many?", "two")], **fields)
        ],
        "test": [
            wanted(
                f"{name}9",
                medium(9),
                questions=[question("4", "where is it?", "kitchen")],
                **fields,
            )
        ],
    }


def msrvtt_qa(raw: Path) -> dict[str, list[dict]]:
    _qa(raw, {"category_id": 14})
    for n in (5, 6, 8, 9):
        put(raw / f"video/video{n}.mp4", clip(n))
    return _qa_wanted("video", clip, group="14")


def msvd_qa(raw: Path) -> dict[str, list[dict]]:
    _qa(raw, {})
    # Two videos by their number, two by the name that the mapping gives.
    names = {5: "-4wsuPCjDBc_5_15", 6: "", 8: "", 9: "klteYv1Uv9A_27_33"}
    lines = [f"{name or f'other{n}_0_1'} vid{n}\n" for n, name in names.items()]
    put(raw / "youtube_mapping.txt", "".join(lines))
    for n, name in names.items():
        put(raw / f"YouTubeClips/{name or f'vid{n}'}.avi", clip(n, ".avi"))
    return _qa_wanted("vid", lambda n: clip(n, ".avi"))


def msvd(raw: Path) -> dict[str, list[dict]]:
    names = ["mv89psg6zh4_33_46", "_UqiqjjqE_I_0_6", "-wa0umYJVGg_271_276"]
    put(
        raw / "AllVideoDescriptions.txt",
        "# The descriptions of all videos\n#\n\n"
        f"{names[0]} A bird is bathing in a sink.\n"
        f"{names[0]} A faucet is running.\n"
        f"{names[1]} A boy rides.\n"
        f"{names[2]} Two dogs play.\n",
    )
    put(raw / "train_list.txt", f"{names[0]}\n")
    put(raw / "val_list.txt", f"{names[1]}\n")
    put(raw / "test_list.txt", f"{names[2]}\n")
    for number, name in enumerate(names):
        put(raw / f"YouTubeClips/{name}.avi", clip(number, ".avi"))
    texts = [["A bird is bathing in a sink.", "A faucet is running."], ["A boy rides."]]
    texts.append(["Two dogs play."])
    return {
        split: [wanted(names[n], clip(n, ".avi"), texts=texts[n])]
        for n, split in enumerate(("train", "val", "test"))
    }


def tgif_frameqa(raw: Path) -> dict[str, list[dict]]:
    header = ["gif_name", "question", "answer", "type", "vid_id", "key", "description"]
    one, two = "tumblr_nk172bbdPI1u1lr18o1_250", "tumblr_nbhuv2qS1C1tu4hv3o1_500"
    three = "tumblr_no00t3zrzm1u9nq2ro1_500"
    put_csv(
        raw / "Train_frameqa_question.csv",
        [
            header,
            [one, "what is the man riding ?", "horse", "0", "ID1", "47", "a man rides a horse"],
            [one, "what colour is it ?", "brown", "2", "ID1", "48", "a man rides a horse"],
            [three, "what is it ?", "cat", "0", "ID3", "50", "a cat"],
        ],
        "\t",
    )
    put_csv(
        raw / "Test_frameqa_question.csv",
        [header, [two, "how many dogs ?", "two", "1", "ID2", "49", "two dogs"]],
        "\t",
    )
    put_csv(raw / "Total_frameqa_question.csv", [header], "\t")
    put(raw / f"gifs/{one}.gif", clip(1, ".gif"))
    put(raw / f"gifs/{two}.gif", clip(2, ".gif"))
    put(raw / f"gifs/{three}.gif", clip(3, ".gif"))
    horse = {"question": "what is the man riding ?", "answer": "horse", "type": "0", "id": "47"}
    brown = {"question": "what colour is it ?", "answer": "brown", "type": "2", "id": "48"}
    dogs = {"question": "how many dogs ?", "answer": "two", "type": "1", "id": "49"}
    cat = {"question": "what is it ?", "answer": "cat", "type": "0", "id": "50"}
    text = ["a man rides a horse"]
    return {
        "train": [wanted(one, clip(1, ".gif"), questions=[horse, brown], texts=text),
                  wanted(three, clip(3, ".gif"), questions=[cat], texts=["a cat"])],
        "test": [wanted(two, clip(2, ".gif"), questions=[dogs], texts=["two dogs"])],
    }


def didemo(raw: Path) -> dict[str, list[dict]]:
    def moment(number, video, description):
        return {
            "annotation_id": number,
            "context": 8,
            "description": description,
            "dl_link": f"https://www.flickr.com/video_download.gne?id={number}",
            "num_segments": 6,
            "reference_description": "after",
            "second_context": 10,
            "times": [[0, 0], [0, 0], [1, 1], [0, 0]],
            "video": video,
        }

    names = ["54322086@N00_2408598493_db23a9bed8", "10015567@N08_3655084291_d8b58466fa"]
    put(
        raw / "train_data.json",
        [
            moment(1, f"{names[0]}.mov", "the camera pans. "),
            moment(2, f"{names[1]}.3gp", "a girl jumps"),
            moment(3, f"{names[0]}.mov", "a dog appears"),
        ],
    )
    put(raw / "val_data.json", [moment(5, f"{names[1]}.3gp", "a girl stands")])
    put(raw / "test_data.json", [moment(4, f"{names[1]}.3gp", "a girl falls")])
    put(raw / f"videos/{names[0]}.mp4", clip(0))
    put(raw / f"videos/{names[1]}.3gp", clip(1))
    return {
        "train": [
            wanted(names[0], clip(0), texts=["the camera pans. a dog appears"]),
            wanted(names[1], clip(1), texts=["a girl jumps"]),
        ],
        "val": [wanted(names[1], clip(1), texts=["a girl stands"])],
        "test": [wanted(names[1], clip(1), texts=["a girl falls"])],
    }


def lsmdc(raw: Path) -> dict[str, list[dict]]:
    one, two = "0001_American_Beauty_00.00.51.926-00.00.54.129", "3001_UP_00.01.10.0-00.01.12.5"
    times = "00.00.51.926\t00.00.54.129\t00.00.51.727\t00.00.54.129"
    put(raw / "LSMDC16_annos_training.csv", f'{one}\t{times}\tSOMEONE says "no".\n')
    put(raw / "LSMDC16_annos_val.csv", f"{two}\t{times}\tIt flies.\n")
    put(raw / "LSMDC16_challenge_1000_publictect.csv", f"{two}\t{times}\tA house flies.\n")
    put(raw / f"avi/0001_American_Beauty/{one}.avi", clip(1, ".avi"))
    put(raw / f"avi/{two}.avi", clip(2, ".avi"))
    film = "0001_American_Beauty"
    up = functools.partial(wanted, two, clip(2, ".avi"), group="3001_UP")
    return {
        "train": [wanted(one, clip(1, ".avi"), texts=['SOMEONE says "no".'], group=film)],
        "val": [up(texts=["It flies."])],
        "test": [up(texts=["A house flies."])],
    }


def release_jsonl(raw: Path) -> dict[str, list[dict]]:
    def lines(*items):
        return "".join(json.dumps(item) + "\n" for item in items)

    put(
        raw / "caption_train.jsonl",
        lines(
            {"video_id": "video1", "caption": "one"},
            {"video_id": "video2", "caption": "two"},
            {"video_id": "video1", "caption": "uno"},
        ),
    )
    put(
        raw / "caption_test.jsonl",
        lines(
            {"video_id": "video3", "golden_captions": ["three", "drei"]},
            {"video_id": "video2", "golden_caption": ["zwei"]},
        ),
    )
    put(
        raw / "qa_test.jsonl",
        lines(
            {"video_id": "video1", "question": "who?", "answer": "man"},
            {"video_id": "video1", "question": "where?", "answer": "park"},
        ),
    )
    put(
        raw / "retrieval_test.jsonl",
        lines(
            {"clip_name": "video2", "caption": "text"},
            {"video": "video3.mp4", "caption": ["a", "b"]},
        ),
    )
    # The order of suffixes decides: mp4, avi, gif.
    put(raw / "videos/video1.mp4", clip(1))
    put(raw / "videos/video1.avi", clip(9, ".avi"))
    put(raw / "videos/video2.avi", clip(2, ".avi"))
    put(raw / "videos/video2.gif", clip(9, ".gif"))
    put(raw / "videos/video3.gif", clip(3, ".gif"))
    questions = [{"question": "who?", "answer": "man"}, {"question": "where?", "answer": "park"}]
    return {
        "caption_test": [
            wanted("video3", clip(3, ".gif"), texts=["three", "drei"]),
            wanted("video2", clip(2, ".avi"), texts=["zwei"]),
        ],
        "caption_train": [
            wanted("video1", clip(1), texts=["one", "uno"]),
            wanted("video2", clip(2, ".avi"), texts=["two"]),
        ],
        "qa_test": [wanted("video1", clip(1), questions=questions)],
        "retrieval_test": [
            wanted("video2", clip(2, ".avi"), texts=["text"]),
            wanted("video3", clip(3, ".gif"), texts=["a", "b"]),
        ],
    }


def webvid(raw: Path) -> dict[str, list[dict]]:
    header = ["videoid", "contentUrl", "duration", "page_dir", "name"]
    put_csv(
        raw / "results_2M_train.csv",
        [
            header,
            ["21179416", "https://x.example/a.mp4", "PT00H00M11S", "006001_006050", "Aerial, sea"],
            ["5629184", "https://x.example/b.mp4", "PT00H00M29S", "071501_071550", "Fog"],
        ],
    )
    put_csv(
        raw / "results_2M_val.csv",
        [header, ["7", "https://x.example/c.mp4", "PT00H00M09S", "1_50", "Rain"]],
    )
    put(raw / "videos/006001_006050/21179416.mp4", clip(1))
    put(raw / "videos/071501_071550/5629184.mp4", clip(2))
    put(raw / "videos/1_50/7.mp4", clip(3))
    return {
        "train": [
            wanted("21179416", clip(1), texts=["Aerial, sea"], group="006001_006050"),
            wanted("5629184", clip(2), texts=["Fog"], group="071501_071550"),
        ],
        "val": [wanted("7", clip(3), texts=["Rain"], group="1_50")],
    }
