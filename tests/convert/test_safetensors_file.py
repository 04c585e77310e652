"""Reading safetensors files: every dtype, and that a bad file is one line that names it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mplug2_jax.convert.official import read_weights
from mplug2_jax.convert.safetensors_file import CODES
from mplug2_jax.convert.stored import DTYPES, CheckpointFileError


def load_all(path):
    return {name: value.load() for name, value in read_weights(path).items()}


def refused(path, match):
    with pytest.raises(CheckpointFileError, match=match) as error:
        load_all(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def write(folder, header, data=bytes(8)):
    path = folder / "x.safetensors"
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)
    return path


def assert_same(loaded, arrays):
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_every_dtype_comes_back(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = {name: (np.arange(6).reshape(2, 3) % 5).astype(DTYPES[name])
              for name in CODES.values()}
    arrays |= {"scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 3), jnp.bfloat16)}
    save_file(arrays, path, {"format": "pt"})
    stored = read_weights(path)
    assert {name: value.shape for name, value in stored.items()} == {
        name: array.shape for name, array in arrays.items()}
    assert all(value.dtype == arrays[name].dtype for name, value in stored.items())
    assert_same(load_all(path), arrays)


@pytest.mark.parametrize("entry, match", [
    ({"dtype": "F32", "shape": [2], "data_offsets": [0, 12]}, "invalid shape"),
    ({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "truncated: .*not fully covered"),
    ({"dtype": "F8", "shape": [2], "data_offsets": [0, 8]}, "unknown variant `F8`"),
    ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "w has dtype F8_E4M3; supported"),
    ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "invalid value"),
    ({"dtype": "F32", "shape": [2, 2 ** 40, 2 ** 40], "data_offsets": [0, 8]}, "overflow"),
    ({"dtype": "F32", "shape": [2, *[1] * 70], "data_offsets": [0, 8]}, "w cannot be read"),
    ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "invalid offset"),
    ({"dtype": "F32", "shape": [2]}, "missing field"), (3, "invalid type"),
])
def test_broken_files_are_refused(tmp_path, entry, match):
    refused(write(tmp_path, {"w": entry}), match)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    refused(path, "No such file")
    for content in (b"", b"abc", b"\xff" * 100, b"PK\x03\x04 and more"):
        path.write_bytes(content)
        refused(path, "not a safetensors file")
    for header in (b"{nonsense", b"[1, 2]"):
        refused(write(tmp_path, header), "invalid JSON")


def test_a_name_that_stands_twice_is_refused(tmp_path):
    one, two = ({"dtype": "F32", "shape": [1], "data_offsets": [at, at + 4]} for at in (0, 4))
    header = f'{{"w": {json.dumps(one)}, "w": {json.dumps(two)}}}'
    refused(write(tmp_path, header.encode()), "invalid offset for tensor `w`")


def test_a_file_that_is_cut_after_it_was_opened_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"w": np.ones(100, np.float32)}, path)
    stored = read_weights(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointFileError, match=f"{path}: w cannot be read"):
        stored["w"].load()


def test_damage_to_the_header_or_the_length_does_no_more_than_one_error(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((3, 4), np.float32), "b": np.arange(5)}, path, {"format": "pt"})
    whole = path.read_bytes()
    size = len(whole) - 3 * 4 * 4 - 5 * 8  # of the header; behind it nothing tells damage
    rng = np.random.default_rng(0)
    caught = 0
    for trial in range(600):
        damaged = bytearray(whole)
        if trial % 3:
            damaged[rng.integers(size)] ^= 1 << rng.integers(8)
        else:
            damaged = damaged[:rng.integers(len(whole))]
        path.write_bytes(damaged)
        try:
            load_all(path)
        except CheckpointFileError as error:
            caught += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert caught > 400  # another letter of a name is another name
