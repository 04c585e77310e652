"""Paths of a config, found from other folders and after a move: plain folders, nothing is run."""

import os
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import common
from mplug2_jax.checkpoints import located


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a run of its own data, and one of shared ones; this folder is another."""
    for name in ("p/runs/a/checkpoints/1", "p/runs/a/data/digits", "p/runs/b/best", "p/shared/d",
                 "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "p/runs/a/data/vocab.model").touch()
    (tmp_path / "p/shared/vocab.txt").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "p"


def test_relative_paths_are_of_the_folder_that_the_run_began_in(project):
    work = project / "runs/a"
    for checkpoint in (work, f"{work}/", work / "checkpoints", "../p/runs/a", "../p/runs/a/best"):
        assert located.work_folder(checkpoint) == work
    for stated in ("runs/a/data", "runs/a/data/vocab.model", "shared/d", "shared/vocab.txt"):
        assert located.find(stated, work) == project / stated
    assert located.find("shared/vocab.txt", project / "runs/b") == project / "shared/vocab.txt"
    assert located.find(str(project / "shared/d"), work) == project / "shared/d"
    assert located.find("shared/none", work) is None
    assert located.find("gs://shared/data", work) is None  # that a store has


def test_from_its_own_folder_nothing_changes(project, monkeypatch):
    monkeypatch.chdir(project)
    assert located.find("shared/d", project / "runs/a") == Path("shared/d")
    (project / "data").mkdir()  # beside the `data` of the work folder
    assert located.find("data", project / "runs/a") == Path("data")


def test_another_project_s_data_of_the_same_name_are_not_taken(project, monkeypatch):
    """Its vocabulary has other ids."""
    (project.parent / "elsewhere/runs/a/data").mkdir(parents=True)
    assert located.find("runs/a/data", project / "runs/a") == project / "runs/a/data"


def test_the_nearest_folder_above_wins_over_the_current_one(project, monkeypatch, caplog):
    """This folder may be one further above that has the same by chance."""
    above = project.parent
    (above / "shared/d").mkdir(parents=True)
    config = ConfigDict({"data": {"root": "shared/d"}})
    for here in (above, above / "elsewhere", above.parent):
        monkeypatch.chdir(here)
        assert located.find("shared/d", project / "runs/a") == project / "shared/d"
    monkeypatch.chdir(above)
    with caplog.at_level("INFO"):
        assert located.located(config, project / "runs/a").data.root == str(project / "shared/d")
    assert f"at {project}/shared/d, and not at {above}/shared/d" in caplog.text
    monkeypatch.chdir(project)
    assert located.located(config, project / "runs/a") is config
    (project / "runs/shared/d").mkdir(parents=True)
    assert located.find("shared/d", project / "runs/a") == project / "runs/shared/d"


def test_the_work_folder_s_own_data_are_not_those_of_another_name(project, monkeypatch):
    """`data` of the project, or of a disk that is gone, is not what the run keeps for itself."""
    work = project / "runs/a"
    (work / "best").mkdir()
    for here in (project.parent / "elsewhere", project):
        monkeypatch.chdir(here)
        for stated in ("/gone/data", "/gone/coco/data", "coco/data", "/gone/best", "checkpoints",
                       "data", "/gone/checkpoints"):
            assert located.find(stated, work) is None
    assert located.find("/gone/vocab.model", work) == work / "data/vocab.model"
    (project / "data").mkdir()
    monkeypatch.chdir(work)
    assert located.find("data", work) == project / "data"


@pytest.mark.parametrize("stated", ["runs/a/data/vocab.model", "/gone/runs/a/data/vocab.model",
                                    "data/vocab.model", "/gone/vocab.model"])
def test_a_run_that_was_moved_keeps_its_own_data(project, stated):
    (project / "runs/a").rename(project.parent / "moved")
    moved = project.parent / "moved"
    assert located.find(stated, moved) == moved / "data/vocab.model"


@pytest.mark.parametrize("prefix", ["/gone/runs/a", "runs/a"])
@pytest.mark.parametrize("name", ["renamed", "a"])
def test_its_data_s_folder_is_known_by_a_file_in_it_or_by_its_own_name(project, prefix, name):
    moved = project.parent / name
    (project / "runs/a").rename(moved)
    config = ConfigDict({"data": {"root": f"{prefix}/data", "tokenizer": "bert_uncased"},
                         "evals": {"x": {"root": "/gone/coco/data"}}})
    meta = {"best": {"root": f"{prefix}/data"}, "config": config.to_dict()}
    known = name == "a"
    assert located.located(config, moved).data.root == (
        str(moved / "data") if known else f"{prefix}/data")
    config.data.tokenizer = f"{prefix}/data/vocab.model"
    found = located.located(config, moved)
    assert found.data.root == str(moved / "data")
    assert found.data.tokenizer == str(moved / "data/vocab.model")
    assert found.evals.x.root == "/gone/coco/data"
    meta["config"] = config.to_dict()
    assert located.best_root(meta, moved / "best") == str(moved / "data")


def test_a_folder_that_may_not_be_looked_into_is_passed_over(project, monkeypatch):
    def refuse(path):
        if str(path).startswith(str(project / "runs")):
            return False  # as `os.path.exists` says of what it may not see
        return os.path.lexists(path)

    monkeypatch.setattr(located.os.path, "exists", refuse)
    assert located.find("shared/d", project / "runs/a") == project / "shared/d"


def test_all_paths_of_a_config_are_looked_for(project, caplog):
    config = common.base("tiny")
    config.data.root, config.data.tokenizer = "runs/a/data", "shared/vocab.txt"
    config.data.streams.x = common.stream({"one": common.source("train", 1, root="shared/d")}, 4)
    config.evals.y = common.evaluation("qa", "test", 4, "val", root="shared/d",
                                       options={"answers": "shared/vocab.txt"})
    config.evals.z = common.evaluation("qa", "test", 4, "val", kind="z",
                                       options={"answers": ("yes", "no")})
    with caplog.at_level("INFO"):
        found = located.located(config, project / "runs/a")
    assert found.data.root == str(project / "runs/a/data")
    assert found.data.tokenizer == str(project / "shared/vocab.txt")
    assert found.data.streams.x.split.one.root == str(project / "shared/d")
    assert found.evals.y.stream.root == str(project / "shared/d")
    assert found.evals.y.task.answers == str(project / "shared/vocab.txt")
    assert found.evals.z.task.answers == ("yes", "no")
    assert f"data.root is found at {project}/runs/a/data" in caplog.text
    assert config.data.root == "runs/a/data"
    assert located.best_root({"best": {"root": "shared/d"}}, project / "runs/b/best") == str(
        project / "shared/d")
    config.data.root = str(project / "shared/d")
    config.data.tokenizer = str(project / "shared/vocab.txt")
    del config.data.streams.x, config.evals.y
    assert located.located(config, project / "runs/a") is config
