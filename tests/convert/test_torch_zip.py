"""Reading PyTorch's files: values, and that nothing bad in a file gets further than one error."""

import os
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from torch_files import STORAGES, number, table, tables, tensor, text, write, write_state

from mplug2_jax.convert.official import read_weights
from mplug2_jax.convert.stored import CheckpointFileError
from mplug2_jax.convert.torch_zip import read_torch


def small_state():
    rng = np.random.default_rng(0)
    return {"a.weight": rng.standard_normal((3, 4)).astype(np.float32),
            "a.bias": rng.standard_normal(3).astype(np.float16),
            "b.ids": np.arange(5)[None], "b.scale": np.float32(2.5).reshape(())}


def refused(path, match):
    with pytest.raises(CheckpointFileError, match=match) as error:
        for value in read_weights(path).values():
            value.load()
    assert "\n" not in str(error.value) and len(str(error.value)) < len(str(path)) + 600
    assert str(error.value).count(str(path)) == 1


@pytest.mark.parametrize("dtype", STORAGES)
def test_every_dtype_comes_back(tmp_path, dtype):
    kind = jnp.bfloat16 if dtype == "bfloat16" else dtype
    array = (np.arange(12).reshape(3, 4) % 5).astype(kind)
    loaded = read_torch(write_state(tmp_path / "x.pth", {"x": array}))
    assert loaded["epoch"] == 0
    value = loaded["model"]["x"].load()
    assert value.dtype == array.dtype
    np.testing.assert_array_equal(value, array)


def test_views_keep_their_strides_and_offsets(tmp_path):
    storage = np.arange(24, dtype=np.float32)
    views = {"transposed": (0, (4, 6), (1, 4)), "slice": (5, (2, 3), (8, 2)),
             "expanded": (7, (3, 2), (0, 1)), "scalar": (9, (), ()), "empty": (0, (0, 3), (3, 1))}
    pickled = table({name: tensor("0", "float32", 24, *view) for name, view in views.items()})
    loaded = read_weights(write(tmp_path / "x.pth", pickled, {"0": storage}))
    for name, (offset, shape, strides) in views.items():
        expected = np.lib.stride_tricks.as_strided(storage[offset:], shape,
                                                   [4 * s for s in strides])
        np.testing.assert_array_equal(loaded[name].load(), expected)
        assert name == "empty" or not loaded[name].load().flags.writeable


def test_parameters_metadata_and_lists_are_read(tmp_path):
    one = tensor("0", "float32", 2, 0, (2,), (1,))
    parameter = (b"ctorch._utils\n_rebuild_parameter\n(" + one
                 + b"\x88ccollections\nOrderedDict\n)RtR")
    ordered = (b"ccollections\nOrderedDict\n)R(" + text("w") + parameter + b"u"
               + table({"_metadata": b"}"}) + b"b")
    others = b"](" + b"G" + struct.pack(">d", 0.5) + b"N\x88" + number(-3) + b"\x85" + b"e"
    path = write(tmp_path / "x.pth", table({"model": ordered, "rest": others}),
                 {"0": np.float32([1, 2])})
    loaded = read_torch(path)
    np.testing.assert_array_equal(loaded["model"]["w"].load(), [1, 2])
    assert loaded["rest"] == [0.5, None, True, (-3,)]


class Runs:
    """Pickles to a call of `os.system`."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Evaluates(Runs):
    def __reduce__(self):
        return eval, (f"__import__('os').system({self.command!r})",)


class SetsState(Runs):
    def __reduce__(self):
        return os.system, (self.command,), {"__setstate__": 1}


def malicious(command):
    yield "posix.system", pickle.dumps(Runs(command), 2)
    yield "posix.system", pickle.dumps({"model": {"w": [Runs(command)]}}, 2)
    yield "posix.system", pickle.dumps(SetsState(command), 2)
    yield "posix.system", pickle.dumps(Runs(command), 4)
    yield "builtins.eval", pickle.dumps(Evaluates(command), 4)
    yield "posix.system", (b"\x80\x02cposix\nsystem\nq\x00(" + text(command) + b"tR.")
    # An allowed name, called with what it was not made for.
    yield "calls torch._utils._rebuild_tensor_v2", (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + text(command) + b"tR.")
    yield "calls torch.FloatStorage", b"\x80\x02ctorch\nFloatStorage\n(K\x01tR."
    # What an allowed name built, called or changed in its turn.
    yield "calls a dict", b"\x80\x02ccollections\nOrderedDict\n)R)R."
    yield "changes an object", (
        b"\x80\x02ccollections\nOrderedDict\n" + table({"__setstate__": text("x")}) + b"b.")
    yield "changes an object", (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
                                + table({"__defaults__": b"K\x01"}) + b"b.")
    yield "operation NEWOBJ", b"\x80\x02ccollections\nOrderedDict\n)\x81."
    yield "operation INST", b"\x80\x02(iposix\nsystem\n."
    yield "operation OBJ", b"\x80\x02(ccollections\nOrderedDict\no."
    yield "operation EXT1", b"\x80\x02\x82\x01."
    yield "builtins.getattr", b"\x80\x02cbuiltins\ngetattr\n."
    yield "torch._utils.os.system", b"\x80\x04" + b"\x8c\x0ctorch._utils\x8c\x09os.system\x93."
    # Tricks against the reader: deep nesting, a memo index and a length of 2 GB, no memory.
    yield "calls a tuple", b"\x80\x02)" + b"\x85" * 20_000 + b")R."
    yield "no text", b"\x80\x04)" + b"\x85" * 20_000 + b"\x8c\x01x\x93."
    yield "str and int|hold", b"\x80\x02}" + b")" + b"\x85" * 20_000 + b"K\x01s."
    yield "stack|list index|hold", b"\x80\x02r\xff\xff\xff\x7f."
    yield "broken pickle", b"\x80\x02X\xff\xff\xff\x7fabc."
    yield "broken pickle", b"\x80\x02\x8b\xff\xff\xff\x7fabc."


def test_a_malicious_pickle_is_refused_by_name_and_executes_nothing(tmp_path):
    canary, path = tmp_path / "executed", tmp_path / "x.pth"
    for match, data in malicious(f"touch {canary}"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
        refused(path, match)
        assert not canary.exists(), match


def test_beside_the_weights_it_is_neither_refused_nor_executed(tmp_path):
    canary, state = tmp_path / "executed", {"w": np.ones(2, np.float32)}
    pickles, storages = tables(model=state)
    for kind in (Runs, Evaluates, SetsState):
        data = pickle.dumps(kind(f"touch {canary}"), 2)[2:-1]
        path = write(tmp_path / "x.pth", table({"args": data, **pickles, "more": data}), storages)
        np.testing.assert_array_equal(read_weights(path)["w"].load(), state["w"])
        assert not canary.exists()


def test_the_canary_is_not_a_dud(tmp_path):
    canary = tmp_path / "executed"
    pickle.loads(next(malicious(f"touch {canary}"))[1])
    assert canary.exists()


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "x.pth"
    refused(path, "No such file")
    refused(tmp_path, "directory")
    for content, match in ((b"", "not a PyTorch"), (b"hello world" * 9, "not a PyTorch"),
                           (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "before version 1.6"),
                           (b"PK\x03\x04" + bytes(40), "truncated or damaged zip")):
        path.write_bytes(content)
        refused(path, match)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, "without a data.pkl")
    refused(write(path, number(3)), "no table of weights")
    refused(write(path, table({"w": number(3)})), "not a tensor")
    refused(write(path, number(3), members=["constants.pkl"]), "not a TorchScript program")


def test_a_cut_file_is_called_truncated(tmp_path):
    path = write_state(tmp_path / "x.pth", small_state())
    data = path.read_bytes()
    for size in (len(data) // 3, len(data) - 1, len(data) - 30):
        path.write_bytes(data[:size])
        refused(path, "truncated or damaged zip")


def test_wrong_members_are_named(tmp_path):
    one = table({"w": tensor("0", "float32", 4, 0, (4,), (1,))})
    values = np.ones(4, np.float32)
    path = tmp_path / "x.pth"
    refused(write(path, one, {}), "tensor file archive/data/0 is missing")
    refused(write(path, one, {"0": values[:3]}), "has 12 bytes, but 4 elements of float32 need 16")
    refused(write(path, one, {"0": values}, method=zipfile.ZIP_DEFLATED), "compressed")
    wrong = one.replace(b"FloatStorage", b"ComplexFloatStorage")
    refused(write(path, wrong, {"0": values}), "dtype of torch.ComplexFloatStorage")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + one + b".")
        archive.writestr("a/data/0", values.tobytes())
        archive.writestr("a/data/0", values.tobytes())
    refused(path, "same name")


HUGE = 2 ** 9000  # a number that Python does not print


@pytest.mark.parametrize("offset, shape, strides, match", [
    (0, (5,), (1,), "needs 5 elements, but its storage holds 4"),
    (1, (4,), (1,), "needs 5"), (0, (2, 2), (3, 1), "needs 5"),
    (0, (2 ** 40,), (1,), "storage holds 4"), (0, (2 ** 60, 4), (0, 0), "absurd"),
    (-1, (2,), (1,), "not a tensor"), (0, (-2,), (1,), "not a tensor"),
    (3, (2,), (-1,), "not a tensor"), (0, (2, 2), (1,), "not a tensor"),
    (0, (1,) * 40, (1,) * 40, "has 40 dimensions: not a tensor"),
    (0, (1,), (1,) * 5000, "has 5000 dimensions"), (0, (HUGE,), (1,), "absurd shape .a int"),
    (0, (2,), (HUGE,), "needs a int elements"), (-HUGE, (2,), (1,), "offset a int: not a"),
], ids=range(14))
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path, offset, shape, strides, match):
    one = table({"w": tensor("0", "float32", 4, offset, shape, strides)})
    refused(write(tmp_path / "x.pth", one, {"0": np.ones(4, np.float32)}), match)


def test_a_flipped_bit_of_a_tensor_is_found(tmp_path):
    state = small_state()
    path = write_state(tmp_path / "x.pth", state)
    data = bytearray(path.read_bytes())
    data[data.index(state["a.weight"].tobytes()) + 13] ^= 1
    path.write_bytes(data)
    refused(path, "archive/data/0 is damaged: its CRC")


def test_two_thousand_corruptions_end_in_our_error_or_change_nothing(tmp_path):
    state = small_state()
    path = write_state(tmp_path / "x.pth", state)
    clean = path.read_bytes()
    rng = np.random.default_rng(0)
    caught = 0
    for trial in range(2000):
        data = bytearray(clean)
        kind = trial % 4
        if kind == 0:
            del data[rng.integers(len(data)):]
        elif kind == 1:
            start = rng.integers(len(data))
            del data[start:start + rng.integers(1, 40)]
        else:
            for place in rng.integers(len(data), size=1 if kind == 2 else rng.integers(2, 20)):
                data[place] ^= rng.integers(1, 256)
        with open(path, "r+b") as file:
            file.write(data)
            file.truncate()
        try:
            loaded = {name: value.load() for name, value in read_weights(path).items()}
        except CheckpointFileError:
            caught += 1
            continue
        assert loaded.keys() == state.keys(), trial
        for name, value in state.items():
            assert loaded[name].dtype == value.dtype
            np.testing.assert_array_equal(loaded[name], value, err_msg=str(trial))
    assert 1000 < caught < 2000  # some bytes (times, versions) mean nothing
