"""A training that goes on in fewer processes, on other meshes, at last with another batch size.

The rest, four processes among it, is `make torture`: `tests/torture/meshes.py`.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
meshes = __import__("meshes")
pytestmark = pytest.mark.slow


TWO, EIGHT = meshes.Part(2, 2, (1, 2, 2)), meshes.Part(1, 8, (2, 2, 2))
LARGER = meshes.Part(1, 1, (1, 1, 1), 16)


@pytest.mark.parametrize("parts", [
    (TWO, LARGER), pytest.param((TWO, EIGHT, LARGER), marks=pytest.mark.long)], ids=len)
def test_it_goes_on_with_other_processes_meshes_and_batch_sizes(parts, miniature, tmp_path):
    """Two processes of two devices, one of eight; then one device, with twice the examples."""
    (tmp_path / "data").symlink_to(miniature)
    found = meshes.changes(tmp_path, parts, steps=16)
    assert found["changes"] == len(parts) - 1 and not any(found[key] for key in meshes.BAD), found
    assert 0 < found["relative"] < meshes.RELATIVE  # other meshes sum in another order
