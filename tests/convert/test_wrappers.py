"""Checkpoints as other programs save them: wrappers, prefixes, what stands beside the weights."""

import argparse
import collections
import datetime
import enum
import json
import pickle
import re
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_files import (
    STORAGES,
    contiguous,
    number,
    program,
    table,
    tables,
    tensor,
    text,
    write,
    write_legacy,
)

from mplug2_jax.convert import torch_pickle
from mplug2_jax.convert.stored import CheckpointFileError
from mplug2_jax.convert.weights_file import IN_FOLDER, read_weights

STATE = {"text.a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
         "text.b.bias": np.arange(3).astype(np.float16), "temp": np.array(0.5, np.float32)}


def nested(path, *keys, state=STATE, writer=write, **beside):
    """A file of a state below keys, with pickles beside it in the outermost dict."""
    pickles, storages = tables(state=state)
    pickled = pickles["state"]
    for key in reversed(keys):
        pickled = table(beside | {key: pickled, "epoch": number(3)})
        beside = {}
    return writer(path, pickled, storages)


def assert_same(path, state=STATE):
    found = read_weights(path)
    assert list(found) == list(state)
    for name, array in state.items():
        value = found[name].load()
        assert value.dtype == array.dtype and value.shape == array.shape
        np.testing.assert_array_equal(value, array)
    return found


def refused(path, match):
    with pytest.raises(CheckpointFileError, match=match) as error:
        for value in read_weights(path).values():
            value.load()
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("writer", [write, write_legacy])
@pytest.mark.parametrize("keys", [
    "model", "module", "state_dict", "model_state_dict", "net", "ema", "model state_dict",
    "state_dict model", "checkpoint model state_dict", "module model", "state_dict module"])
def test_weights_are_found_in_any_wrapper(tmp_path, keys, writer):
    assert_same(nested(tmp_path / "x.pth", *keys.split(), writer=writer))


def test_which_of_several_tables_is_the_weights(tmp_path):
    other = {"w": np.zeros(2, np.float32)}
    pickles, storages = tables(model=STATE, module=other, state_dict=other, ema=other)
    path = tmp_path / "x.pth"
    assert_same(write(path, table(pickles), storages))  # the first of the names that are looked at
    # A table of words under that name is none.
    pickles["model"] = table({"name": text("vit"), "width": number(3)})
    assert set(read_weights(write(path, table(pickles), storages))) == {"w"}
    # Without a name that says which, only one may be there; tensors beside one are no table.
    pickles, storages = tables(student=STATE, teacher=STATE)
    refused(write(path, table(pickles), storages), "several tables of weights, student, teacher;")
    optimizer = table({"state": b"}" + number(0) + table({"exp_avg": pickles["teacher"]}) + b"s"})
    beside = {"optimizer": optimizer, "net": pickles["student"]}
    assert_same(write(path, table(beside), storages))
    random = tensor("r", "uint8", 3, 0, (3,), (1,))  # PyTorch's state of its random numbers
    assert_same(write(path, table({"rng": random} | beside), storages | {"r": b"abc"}))
    assert set(read_weights(write(path, table({"rng": random}), {"r": b"abc"}))) == {"rng"}


@pytest.mark.parametrize("prefix", [
    "module.", "model.", "_orig_mod.", "_forward_module.", "module.module.", "module._orig_mod.",
    "_orig_mod.module.", "model._orig_mod.module.", "_fsdp_wrapped_module.",
    "module.model.", "module._fsdp_wrapped_module._checkpoint_wrapped_module."])
def test_prefixes_of_wrappers_are_removed(tmp_path, prefix):
    state = {f"{prefix}{name}": array for name, array in STATE.items()}
    assert_same(nested(tmp_path / "x.pth", "model", state=state))
    save_file(state, tmp_path / "x.safetensors")
    assert set(read_weights(tmp_path / "x.safetensors")) == set(STATE)


@pytest.mark.parametrize("within", ["_orig_mod", "_fsdp_wrapped_module",
                                    "_checkpoint_wrapped_module"])
def test_names_of_wrappers_within_names_are_removed(tmp_path, within):
    state = {name.replace("text.", f"text.{within}."): array for name, array in STATE.items()}
    assert_same(nested(tmp_path / "x.pth", "model", state=state))
    both = state | STATE
    refused(nested(tmp_path / "x.pth", "model", state=both), "two names become text.a.weight")


def test_a_prefix_that_not_every_name_has_stays(tmp_path):
    for prefix in ("module.", "model.", "_forward_module."):
        state = {f"{prefix}{name}": array for name, array in STATE.items()}
        state["other"] = STATE["temp"]
        assert set(read_weights(nested(tmp_path / "x.pth", "model", state=state))) == set(state)
    odd = {"module.": STATE["temp"], "my_orig_mod.w": STATE["temp"], "modules.w": STATE["temp"]}
    assert set(read_weights(nested(tmp_path / "x.pth", "model", state=odd))) == set(odd)
    # But for the counter of PyTorch's averaged model.
    state = {"n_averaged": np.array(7)} | {
        f"module.{name}": array for name, array in STATE.items()}
    assert_same(nested(tmp_path / "x.pth", "model", state=state))


class Ordered(collections.OrderedDict):
    """As configs of YAML libraries are."""


class Attributes(dict):
    """As `CfgNode`, `AttrDict` and the like are."""


class Color(enum.Enum):
    RED = 1


def junk():
    """What training loops save beside weights."""
    ordered = Ordered(a=1, b=[Ordered(c=2)])
    ordered.comment = "x"
    lists: list = []
    lists.append(lists)
    cycle: tuple = ([],)
    cycle[0].append(cycle)  # pickled with POP
    return {
        "config": ordered, "attributes": Attributes(a=Attributes(b=1)),
        "args": argparse.Namespace(lr=1e-4, out=Path("/x")), "scalar": np.float32(3),
        "array": np.arange(3), "state": np.random.default_rng(0).bit_generator.state,
        "enum": Color.RED, "when": datetime.datetime(2020, 1, 1), "sets": [{1, 2}, frozenset([1])],
        "default": collections.defaultdict(list, a=[1]), "counter": collections.Counter("aab"),
        "complex": 3 + 4j, "slice": slice(1, 2), "bytes": [b"abc", bytearray(b"x")],
        "range": range(3), "big": [2 ** 200, -2 ** 70, True, None, float("inf"), 1.5],
        "text": "caf\u00e9 \u5317\u4eac", "lists": lists, "cycle": cycle, "class": int}


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("where", ["beside", "within"])
@pytest.mark.parametrize("writer", [write, write_legacy])
def test_what_is_no_tensor_stays_out_of_the_way(tmp_path, protocol, where, writer):
    data = pickle.dumps(junk(), protocol)
    data = data[2:-1] if protocol > 1 else data[:-1]
    pickles, storages = tables(model=STATE)
    if where == "beside":
        content = table({"junk": data, "model": pickles["model"]})
    else:
        content = table({"model": b"}" + text("junk") + data + b"s" + pickles["model"][2:-1]
                         .join((b"(", b"u"))})
    found = assert_same(writer(tmp_path / "x.pth", content, storages))
    assert set(found.left_out) == ({"junk"} if where == "within" else set())


@pytest.mark.parametrize("name, value, why", [
    ("epoch", 3, "a int"), ("scale", 4.6, "a float"), ("x._extra_state", None, "a NoneType"),
    ("args", argparse.Namespace(lr=1), "refused: the pickle asks for argparse.Namespace, which"),
    ("np", np.float32(2), "refused: the pickle asks for numpy.*scalar, which builds no tensor"),
    ("list", [1], "a list"), ("inner", {"a": 1}, "a dict")])
def test_what_is_left_out_of_a_table_is_told(tmp_path, name, value, why):
    pickles, storages = tables(model=STATE)
    content = pickles["model"] + b"(" + text(name) + pickle.dumps(value, 2)[2:-1] + b"u"
    found = assert_same(write(tmp_path / "x.pth", content, storages))  # of no wrapper at all
    assert set(found.left_out) == {name}
    assert re.match(why, found.left_out[name])


def test_an_object_that_is_a_dict_of_weights_is_read(tmp_path):
    pickles, storages = tables(model=STATE)
    entries = pickles["model"][1:]  # without its empty dict
    new = b"cmmcv.utils\nOrdered\n)\x81" + entries
    made = b"cmmcv.utils\nOrdered\n(t" + b"R" + entries + b"}" + text("x") + number(1) + b"sb"
    for content in (new, made, table({"model": new}), table({"state_dict": made})):
        assert_same(write(tmp_path / "x.pth", content, storages))


def test_parameters_with_attributes_are_their_tensors(tmp_path):
    array = np.float32([1, 2])
    one = tensor("0", "float32", 2, 0, (2,), (1,))
    hooks = b"ccollections\nOrderedDict\n)R"
    state = pickle.dumps({"config": Ordered(a=1)}, 2)[2:-1]
    parameter = b"ctorch._utils\n_rebuild_parameter_with_state\n(" + one + b"\x88" + hooks + state
    pieces = one[len(b"ctorch._utils\n_rebuild_tensor_v2\n"):-1]  # the arguments
    typed = (b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n"
             b"ctorch\nTensor\n" + pieces + state)
    older = b"ctorch._utils\n_rebuild_tensor\n" + pieces[:pieces.index(b"\x89")] + b"t"
    content = table({"a": parameter + b"tR", "b": typed + b"tR", "c": older + b"R"})
    assert_same(write(tmp_path / "x.pth", content, {"0": array}),
                {"a": array, "b": array, "c": array})
    # Of another class it may mean something else.
    other = typed.replace(b"ctorch\nTensor\n", b"cxformers\nSparse\n")
    refused(write(tmp_path / "x.pth", table({"a": other + b"tR"}), {"0": array}),
            "asks for xformers.Sparse")
    # Nor is the function anything but these: nothing calls itself again and again.
    name = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    refused(write(tmp_path / "x.pth", table({"a": name + b"(" + name + b"ctorch\nTensor\n)NtR"})),
            "calls torch._tensor._rebuild_from_type_v2 with unexpected arguments")


@pytest.mark.parametrize("dtype", STORAGES)
def test_files_of_big_endian_machines_and_of_old_versions(tmp_path, dtype):
    array = (np.arange(12).reshape(3, 4) % 5).astype(jnp.bfloat16 if dtype == "bfloat16" else dtype)
    pickles, storages = tables(model={"x": array})
    big = {key: value.byteswap().tobytes() for key, value in storages.items()}
    assert_same(write(tmp_path / "x.pth", table(pickles), big, order="big"), {"x": array})
    assert_same(write_legacy(tmp_path / "x.bin", table(pickles), storages), {"x": array})


def test_old_files_keep_views_and_shared_storages(tmp_path):
    storage = np.arange(24, dtype=np.float32)
    views = {"transposed": (0, (4, 6), (1, 4)), "slice": (5, (2, 3), (8, 2)),
             "scalar": (9, (), ()), "empty": (0, (0, 3), (3, 1))}
    pickled = table({name: tensor("0", "float32", 24, *view) for name, view in views.items()})
    path = write_legacy(tmp_path / "x.bin", pickled, {"0": storage})
    assert_same(path, {name: np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [4 * s for s in strides])
        for name, (offset, shape, strides) in views.items()})


def test_damaged_old_files_are_errors_of_one_line(tmp_path):
    pickles, storages = tables(model=STATE)
    path = write_legacy(tmp_path / "x.bin", table(pickles), storages)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(300):
        data = bytearray(whole)
        if trial % 2:
            data = data[:2 + rng.integers(len(data) - 2)]
        else:
            data[2 + rng.integers(len(data) - 2)] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            found = {name: x.load() for name, x in read_weights(path).items()}
        except CheckpointFileError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert trial % 2 == 0 and found
    for content, match in ((pickle.dumps({"w": 1}, 4), "a pickle, not a PyTorch checkpoint"),
                           (whole[:-1], "before version 1.6: truncated in storage 2"),
                           (whole + b"0", "1 bytes too many"),
                           (whole.replace(b"Float", b"Quint", 1), "dtype of|not supported"),
                           # A length of 2 GiB, which is not there to be read.
                           (whole[:16] + b"X\xff\xff\xff\x7fabc.", "before version 1.6: broken")):
        path.write_bytes(content)
        refused(path, match)
    wrong = dict(storages) | {"0": np.ones(7, np.float32)}
    refused(write_legacy(path, table(pickles), wrong), "storage 0 has 7 elements instead of 6")


@pytest.mark.parametrize("version, match", [
    (text("\x1b[31m\n" + "x" * 99), r"of version .x1b.31m.nxxxxxx+, not 1001"),
    (b"\x8b" + (10_000).to_bytes(4, "little") + b"\x01" * 10_000, "of version a int, not"),
    (b")" + b"\x85" * 100_000, "of version a tuple, not 1001"),
    (b"cmine\nNet\n", "of version refused: the pickle"), (b"N", "of version a NoneType"),
    (number(1000), "of version 1000, not 1001")])
def test_another_version_of_an_old_file_is_told_safely(tmp_path, version, match):
    pickles, storages = tables(model=STATE)
    path = write_legacy(tmp_path / "x.bin", table(pickles), storages)
    path.write_bytes(path.read_bytes().replace(number(1001) + b".", version + b".", 1))
    with pytest.raises(CheckpointFileError, match=match) as error:
        read_weights(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 200 + len(str(path))


def test_keys_are_told_safely(tmp_path):
    huge = b"\x8b" + (10_000).to_bytes(4, "little") + b"\x01" * 10_000
    for key, match in ((huge, "a int"), (text("a\n\x1b[0m"), r"a.n.x1b.0m"), (b")", "refused: a")):
        for content in (b"}" + key + number(1) + b"s", b"}" + key + b"cmine\nNet\ns"):
            refused(write(tmp_path / "x.pth", content), f"no table of weights .*{match}")
        pickles, storages = tables(model=STATE)
        path = write(tmp_path / "x.pth", pickles["model"] + key + b"Ns", storages)
        assert re.match(match, *read_weights(path).left_out)


def test_what_entries_share_is_looked_into_once(tmp_path):
    """A file of some hundred kilobytes took minutes."""
    pickles, storages = tables(model=STATE)
    shared = b"](" + number(1) * 50_000 + b"eq\xff"
    entries = {f"e{i}": b"]" + (b"h\xff" if i else shared) + b"a" for i in range(5_000)}
    path = write(tmp_path / "x.pth", pickles["model"] + table(entries)[1:], storages)
    began = time.process_time()
    assert set(read_weights(path).left_out.values()) == {"a list"}
    assert time.process_time() - began < 5  # 250 million steps are not to be had in that


def test_a_pickle_of_too_many_operations_is_refused(tmp_path, monkeypatch):
    pickles, storages = tables(model=STATE)
    monkeypatch.setattr(torch_pickle, "MAX_OPERATIONS", 10_000)
    assert_same(write(tmp_path / "x.pth", table(pickles), storages))
    many = b"](" + b"".join(number(i % 256) + b"N\x86" for i in range(1_000)) + b"eq\xff"
    again = b"0ccollections\nOrderedDict\nh\xff\x85R"  # each makes a dict of a thousand
    state = b"0cmine\nNet\nh\xffb"
    filled = b"}(" + b"".join(number(i % 256) + b"N" for i in range(1_000)) + b"uq\xff"
    for content in (b"N0" * 10_000 + b"}", many + again * 20, filled + state * 60):
        path = write(tmp_path / "x.pth", content)
        refused(path, "refused: more than 10,000 operations")
    refused(write_legacy(path, b"N0" * 10_000 + b"}", {}), "more than 10,000 operations")
    monkeypatch.setattr(torch_pickle, "MAX_OPERATIONS", 100_000)
    refused(write(path, b"N0" * 10_000 + b"}"), "holds no table of weights")


def test_an_index_that_is_deep_is_one_line(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": ' + "[" * 100_000)
    refused(path, "not an index")


def test_the_parameters_of_a_torchscript_program(tmp_path):
    """As OpenAI gave out CLIP: nested objects whose attributes are parameters and the like."""
    pickles = {name: tensor(str(at), array.dtype.name, array.size, 0, array.shape,
                            contiguous(array.shape))
               for at, (name, array) in enumerate(STATE.items())}
    intlist = b"ctorch.jit._pickle\nbuild_intlist\n](" + number(1) + b"e\x85R"
    blocks = [program("block", {"weight": pickles["text.a.weight"], "training": b"\x88"}),
              program("block", {"bias": pickles["text.b.bias"], "sizes": intlist})]
    text_tower = program("tower", dict(zip("ab", blocks, strict=True)))
    content = program("clip", {"temp": pickles["temp"], "input_resolution": number(224),
                               "text": text_tower, "name": text("ViT")})
    storages = {str(at): array for at, array in enumerate(STATE.values())}
    path = write(tmp_path / "x.pt", content, storages, members=["constants.pkl"])
    found = read_weights(path)
    assert set(found) == set(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(found[name].load(), array)
    # One that contains itself, or is nothing.
    refused(write(path, b"c__torch__\nA\n)\x81q\x00}" + text("a") + b"h\x00sb",
                  members=["constants.pkl"]), "too many parts")
    refused(write(path, program("empty", {}), members=["constants.pkl"]), "no table of weights")


def test_what_has_no_weights_says_what_it_has(tmp_path):
    path = tmp_path / "x.pth"
    module = (b"cmine\nNet\n)\x81" + table({"training": b"\x88", "_parameters": b"}"}) + b"b")
    for content, match in (
            (b"}", "holds no table of weights in it$"), (b"]", "holds no table of weights"),
            (table({"model": b"}"}), "no table of weights under model or module .* it has model"),
            (table({"models": b"]"}), "it has models: a list, not a tensor"),
            (module, "a whole module, which is code; save its state_dict"),
            (table({"model": module, "epoch": number(1)}), "a whole module, which is code"),
            (table({"model": b"cmine\nNet\n)R"}), "asks for mine.Net, which builds no tensor")):
        refused(write(path, content), match)
    empty = {name: np.zeros(0, np.float32) for name in STATE}
    refused(nested(path, "module", state=empty), "all its tensors are empty: .* zero_to_fp32.py")
    one = tensor("0", "float32", 1, 0, (1,), (1,))
    refused(write(path, b"}" + number(0) + one + b"s", {"0": np.ones(1, "f")}),
            "a tensor in the table of weights has no name, but 0")
    save_file({}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "holds no tensor")


def shards(folder, kind):
    """The state in two files and their index; of `model.` before every name."""
    folder.mkdir()
    names = [f"model.{name}" for name in STATE]
    arrays = dict(zip(names, STATE.values(), strict=True))
    suffix, stem = {"safetensors": ("safetensors", "model"), "torch": ("bin", "pytorch_model"),
                    "legacy": ("bin", "pytorch_model")}[kind]
    places = {}
    for at, part in enumerate((names[:2], names[2:])):
        file = f"{stem}-0000{at + 1}-of-00002.{suffix}"
        places |= dict.fromkeys(part, file)
        state = {name: arrays[name] for name in part}
        if kind == "safetensors":
            save_file(state, folder / file)
        else:
            pickles, storages = tables(state=state)
            (write if kind == "torch" else write_legacy)(folder / file, pickles["state"], storages)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
def test_several_files_by_their_index_and_by_their_folder(tmp_path, kind):
    index = shards(tmp_path / "x", kind)
    assert_same(index)
    assert_same(tmp_path / "x")
    file = next(iter(json.loads(index.read_text())["weight_map"].values()))
    (tmp_path / "x" / file).unlink()
    with pytest.raises(CheckpointFileError, match=f"{file}: No such file"):
        read_weights(index)
    index.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(CheckpointFileError, match="names no file"):
        read_weights(index)


def test_a_folder_gives_its_file_of_the_usual_name(tmp_path):
    refused(tmp_path, "a directory without weights .* model.safetensors, .* or the path of a file")
    for name in reversed(IN_FOLDER):
        if name.endswith("json"):
            continue
        state = {f"of {name}": np.ones(1, np.float32)}
        if name.endswith("safetensors"):
            save_file(state, tmp_path / name)
        else:
            pickles, storages = tables(state=state)
            write(tmp_path / name, pickles["state"], storages)
        assert list(read_weights(tmp_path)) == [f"of {name}"]
