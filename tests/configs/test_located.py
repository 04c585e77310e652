"""Paths of a config, found from other folders and after a move: plain folders, nothing is run."""

import os
from pathlib import Path

import pytest

from configs import common, located


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


@pytest.mark.parametrize("stated", ["runs/a/data/vocab.model", "/gone/runs/a/data/vocab.model",
                                    "data/vocab.model", "/gone/vocab.model"])
def test_a_run_that_was_moved_keeps_its_own_data(project, stated):
    (project / "runs/a").rename(project.parent / "moved")
    moved = project.parent / "moved"
    assert located.find(stated, moved) == moved / "data/vocab.model"
    assert located.find("/gone/runs/a/data", moved) == moved / "data"


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
