"""Files as `torch.save` writes them, and released state dicts of any size, without PyTorch."""

import struct
import zipfile
from pathlib import Path

import numpy as np

from mplug2_jax.convert import official
from mplug2_jax.convert.layout import their_shapes
from mplug2_jax.model.config import MODULES, ModelConfig

STORAGES = {"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16",
            "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
            "bool": "Bool"}
CONFIG = ModelConfig(  # of a small released model
    vision_width=64, vision_layers=2, patch_size=4, image_size=8, width=32, heads=4, mlp_dim=48,
    vocab_size=60, max_positions=12, text_layers=2, universal_layers=2, latents=3,
    fusion_layers=2, decoder_layers=2, dropout=0.0)


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    size = max(8, value.bit_length() // 8 + 1)
    head = b"\x8a" + bytes([size]) if size < 256 else b"\x8b" + size.to_bytes(4, "little")
    return head + value.to_bytes(size, "little", signed=True)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key, dtype, numel, offset, shape, strides):
    """The pickle of one tensor, as protocol 2 writes it."""
    return (b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage")
            + f"ctorch\n{STORAGES[dtype]}Storage\n".encode() + text(key) + text("cpu")
            + number(numel) + b"tQ" + number(offset) + numbers(shape) + numbers(strides)
            + b"\x89ccollections\nOrderedDict\n)RtR")


def table(entries):
    """The pickle of a dict with string keys, of pickled values."""
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def contiguous(shape):
    return [int(np.prod(shape[i + 1:], dtype=np.int64)) for i in range(len(shape))]


def write(path, pickle, storages=(), root="archive", method=zipfile.ZIP_STORED, order="little",
          members=()):
    """A zip of a pickle (without its frame) and the storages' arrays or bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{root}/data.pkl", b"\x80\x02" + pickle + b".")
        archive.writestr(f"{root}/byteorder", order)
        for name in members:
            archive.writestr(f"{root}/{name}", b"")
        for key, value in dict(storages).items():
            archive.writestr(f"{root}/data/{key}",
                             value if isinstance(value, bytes) else np.asarray(value).tobytes())
        archive.writestr(f"{root}/version", "3\n")
    return Path(path)


def write_legacy(path, pickle, storages):
    """A file of PyTorch before version 1.6, of a pickle (without its frame) and arrays."""
    magic = (0x1950a86a20f9469cfc6c).to_bytes(10, "little")
    parts = [b"\x8a\x0a" + magic, number(1001), b"}" + text("little_endian") + b"\x88s", pickle,
             b"](" + b"".join(map(text, storages)) + b"e"]
    content = b"".join(b"\x80\x02" + part + b"." for part in parts)
    for array in storages.values():
        array = np.asarray(array)
        content += array.size.to_bytes(8, "little") + array.tobytes()
    Path(path).write_bytes(content)
    return Path(path)


def program(kind, attributes):
    """The pickle of an object of a TorchScript program, of pickled attributes."""
    return f"c__torch__.{kind}\nTheirs\n)".encode() + b"\x81" + table(attributes) + b"b"


def tables(**states):
    """The pickle of each state of contiguous arrays, and the storages of all of them."""
    pickles, storages = {}, {}
    for table_name, state in states.items():
        entries = {}
        for name, array in state.items():
            key = str(len(storages))
            entries[name] = tensor(key, array.dtype.name, array.size, 0, array.shape,
                                   contiguous(array.shape))
            storages[key] = array
        pickles[table_name] = table(entries)
    return pickles, storages


def write_state(path, state, **options):
    """`{"model": state, "epoch": 0}` of contiguous arrays."""
    pickles, storages = tables(model=state)
    return write(path, table(pickles | {"epoch": number(0)}), storages, **options)


def released_state(config, seed=0, stored_fusion=None, scale=0.2):
    """A released state dict of a model's sizes, random, with all that is to be ignored.

    Args:
      stored_fusion: fusion layers of the checkpoint; one more than run by default.
    """
    stored = stored_fusion or config.fusion_layers + 1
    layout = official.vision_layout(config) | official.text_layout(config, stored)
    shapes = their_shapes(layout, official.parameter_shapes(config, MODULES))
    rng = np.random.default_rng(seed)
    state = {name: (scale * rng.standard_normal(shape)).astype(np.float32)
             for name, shape in shapes.items()}
    for name, twin in official.TIED.items():
        state[name] = state[twin]
    width = config.width
    extra = {
        "visual_encoder.visual.proj": (config.vision_width, 8),
        "visual_encoder.logit_scale": (),
        "visual_encoder.transformer.resblocks.0.ln_1.weight": (8,),
        "text_encoder.encoder.layer.0.intermediate_vision.dense.bias": (config.mlp_dim,),
        "text_decoder.bert.encoder.layer.0.latents": (config.latents, width),
        "fusion_encoder.embeddings.LayerNorm.bias": (width,),
        **{f"fusion_encoder.encoder.layer.{i}.output.dense.bias": (width,)
           for i in range(stored - config.fusion_layers)},
        "visn_emb_norm_m.weight": (width,),
    }
    # Connected layers have a cross-attention that never runs.
    for i in official.connected_layers(config):
        layer = f"fusion_encoder.encoder.layer.{stored - config.fusion_layers + i}"
        extra[f"{layer}.crossattention.self.query.bias"] = (width,)
    state |= {name: np.ones(shape, np.float32) for name, shape in extra.items()
              if name not in state}
    state["text_encoder.embeddings.position_ids"] = np.arange(config.max_positions)[None]
    return state
