"""The pages that `make docs` writes: what the code says now, and complete."""

from commands import ROOT

from configs import common, keys
from docs import make


def test_the_pages_are_what_the_code_says(tmp_path):
    make.write(tmp_path)
    kept = ROOT / "docs" / "reference"
    assert {path.name for path in kept.iterdir()} == set(make.PAGES)
    for name in make.PAGES:
        assert (kept / name).read_text() == (tmp_path / name).read_text(), f"{name}: make docs"


def test_the_tables_within_other_pages_are_what_was_measured():
    for name in make.TABLES:
        text = (ROOT / "docs" / name).read_text()
        assert make.filled(name) == text, f"{name}: make docs"
        for table in make.TABLES[name].values():
            assert table() in text


def test_no_key_is_left_out():
    config, page = common.base("tiny"), make.keys_page()
    for key in map(keys.kind_of, {*keys.keys(config), *keys.all_comments(config)}):
        by_task = key.rpartition(".")[2] in make.GIVEN_BY_TASKS
        assert (f"`{key}`" in page) != (by_task or key.startswith("task.")), key
