"""Files for evaluation servers: what the server's rules say, read by other parsers than wrote them.

GLUE (gluebenchmark.com/faq, and the files that jiant writes for it): a zip without folders of
tab-separated files of fixed names, a line `index`, `prediction`, then every row of the test file
once; labels are 0 and 1 (CoLA, SST-2, MRPC, QQP, WNLI), words (MNLI, QNLI, RTE, AX) or a number
from 0 to 5 (STS-B). COCO (cocodataset.org, format of results, and its CodaLab server): a zip of
`captions_val2014_NAME_results.json` and `captions_test2014_NAME_results.json`, each a list of
`image_id`, a whole number, and `caption`. NoCaps (EvalAI): such a list of every image, no zip.
"""

import csv
import json
import zipfile

import pytest

from mplug2_jax.metrics import submissions
from mplug2_jax.metrics.submissions import GLUE, main, numbers_of, write_captions, write_glue

SAME = ("not_entailment", "entailment")


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("name, classes, said, expected", [
    ("CoLA.tsv", ("unacceptable", "acceptable"), ["acceptable", "unacceptable"], ["1", "0"]),
    ("QQP.tsv", ("not_duplicate", "duplicate"), ["not_duplicate", "duplicate"], ["0", "1"]),
    ("MNLI-mm.tsv", ("entailment", "neutral", "contradiction"), ["neutral", "contradiction"],
     ["neutral", "contradiction"]),
    ("RTE.tsv", SAME, ["entailment", "not_entailment"], ["entailment", "not_entailment"]),
    ("WNLI.tsv", SAME, ["entailment", "not_entailment"], ["1", "0"]),
    ("STS-B.tsv", (), [5.31, -0.2], ["5.000", "0.000"]),
])
def test_glue_has_a_row_an_example_in_the_order_of_the_test_file(name, classes, said, expected,
                                                               tmp_path):
    write_glue(tmp_path / name, [1, 0], said[::-1], classes)
    assert table(tmp_path / name) == [{"index": str(row), "prediction": label}
                                      for row, label in enumerate(expected)]
    assert (tmp_path / name).read_bytes().startswith(b"index\tprediction\n0\t")


@pytest.mark.parametrize("numbers, said, message", [
    ([0, 2], ["entailment"] * 2, "row 1 is missing or comes twice"),
    ([0, 1, 1], ["entailment"] * 3, "row 1 is missing or comes twice"),
    ([0], ["maybe"], "'maybe' is no label; expected one of entailment, not_entailment"),
])
def test_glue_that_would_be_refused(numbers, said, message, tmp_path):
    with pytest.raises(ValueError, match=f"^QNLI.tsv: {message}"):
        write_glue(tmp_path / "QNLI.tsv", numbers, said, SAME)
    assert not list(tmp_path.iterdir())


def test_captions_have_their_image_as_a_whole_number(tmp_path):
    write_captions(tmp_path / "c.json", numbers_of(["391895", "7"]), ["a café", "a dog"])
    assert json.loads((tmp_path / "c.json").read_text("utf-8")) == [
        {"image_id": 391895, "caption": "a café"}, {"image_id": 7, "caption": "a dog"}]
    for ids in (["7", "7"], ["7", "video7"], ["7", "-1"], ["07", "7"], []):
        assert numbers_of(ids) is None


def glue(folder, rows=2):
    """All files but WNLI's and AX's, of so many rows."""
    paths = []
    for name, (_, labels) in GLUE.items():
        if name not in ("WNLI.tsv", "AX.tsv"):
            said = [labels[0] if labels else 1.5] * rows
            write_glue(folder / name, range(rows), said, labels)
            paths.append(str(folder / name))
    return paths


def test_glue_is_one_flat_zip_of_eleven_files(tmp_path, capsys, monkeypatch):
    paths, out = glue(tmp_path), str(tmp_path / "glue.zip")
    assert main([out, *paths]) == 1
    assert "error: WNLI.tsv, AX.tsv missing: GLUE's server takes all 11" in capsys.readouterr().err
    assert main([out, *paths, "--fill", "WNLI", "AX"]) == 1
    assert "CoLA.tsv: 2 rows, and the test set has 1063" in capsys.readouterr().err
    monkeypatch.setattr(submissions, "GLUE", {
        name: one._replace(rows=2) for name, one in GLUE.items()})
    assert main([out, *paths, "--fill", "WNLI", "AX"]) == 0
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None and set(archive.namelist()) == set(GLUE)
        for name in archive.namelist():
            lines = archive.read(name).decode("utf-8").splitlines()
            assert lines[0] == "index\tprediction"
            assert [line.split("\t")[0] for line in lines[1:]] == ["0", "1"]
        assert archive.read("WNLI.tsv") == b"index\tprediction\n0\t0\n1\t0\n"
    assert main([out, *paths, "--fill", "WNLI", "AX", "RTE"]) == 1  # given, too
    assert main([out, *paths, str(tmp_path / "glue.zip"), "--fill", "WNLI", "AX"]) == 1
    (tmp_path / "RTE.tsv").write_text("index\tprediction\n1\tentailment\n0\tentailment\n")
    assert main([out, *paths, "--fill", "WNLI", "AX"]) == 1
    assert "RTE.tsv: expected a line of index and prediction, then" in capsys.readouterr().err


def test_published_sizes():
    """Of the test files of gluebenchmark.com."""
    assert {name: one.rows for name, one in GLUE.items()} == {
        "CoLA.tsv": 1063, "SST-2.tsv": 1821, "MRPC.tsv": 1725, "STS-B.tsv": 1379,
        "QQP.tsv": 390965, "MNLI-m.tsv": 9796, "MNLI-mm.tsv": 9847, "QNLI.tsv": 5463,
        "RTE.tsv": 3000, "WNLI.tsv": 146, "AX.tsv": 1104}


def test_coco_is_a_zip_of_both_splits(tmp_path, capsys):
    names = [f"captions_{split}_mplug2_results.json" for split in ("val2014", "test2014")]
    for name in names:
        write_captions(tmp_path / name, [3, 1], ["a cat", "a dog"])
    out, paths = tmp_path / "results.zip", [str(tmp_path / name) for name in names]
    assert main([str(out), *paths]) == 0
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == sorted(names)
        assert [row["image_id"] for row in json.loads(archive.read(names[0]))] == [3, 1]
    other = tmp_path / "captions_val2014_other_results.json"
    other.write_text("[]")
    for wrong in (paths[:1], [*paths, str(other)], [str(other), paths[1]], [], [str(out)]):
        assert main([str(out), *wrong]) == 1
        assert "captions_val2014_NAME_results.json" in capsys.readouterr().err
