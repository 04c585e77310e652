"""BERT's and PyTorch's naming of layers, shared by the release and Hugging Face."""

from mplug2_jax.convert.layout import DENSE, Layout, Slot, Transform


def dense(theirs: str, ours: str, layer: int | None = None, transform: Transform = DENSE) -> Layout:
    """A linear layer, or a convolution that `transform` makes one."""
    return {f"{theirs}.weight": (Slot(f"{ours}/kernel", layer, transform),),
            f"{theirs}.bias": (Slot(f"{ours}/bias", layer),)}


def norm(theirs: str, ours: str, layer: int | None = None) -> Layout:
    """A LayerNorm."""
    return {f"{theirs}.weight": (Slot(f"{ours}/scale", layer),),
            f"{theirs}.bias": (Slot(f"{ours}/bias", layer),)}


def embeddings(theirs: str, ours: str) -> Layout:
    """Word, position and token-type tables and their LayerNorm."""
    return {f"{theirs}.word_embeddings.weight": (Slot(f"{ours}/word"),),
            f"{theirs}.position_embeddings.weight": (Slot(f"{ours}/position"),),
            f"{theirs}.token_type_embeddings.weight": (Slot(f"{ours}/token_type"),),
            **norm(f"{theirs}.LayerNorm", f"{ours}/norm")}


def attention(theirs: str, ours: str, norm_name: str, layer: int | None) -> Layout:
    """An attention with its output projection and LayerNorm."""
    layout: Layout = {}
    for name in ("query", "key", "value"):
        layout |= dense(f"{theirs}.self.{name}", f"{ours}/{name}", layer)
    return (layout | dense(f"{theirs}.output.dense", f"{ours}/out", layer)
            | norm(f"{theirs}.output.LayerNorm", norm_name, layer))


def layer(theirs: str, ours: str, place: int | None, cross: bool = False) -> Layout:
    """A `TransformerLayer`, at `place` of a stack or (None) on its own."""
    layout = attention(f"{theirs}.attention", f"{ours}/self_attention", f"{ours}/self_norm", place)
    if cross:
        layout |= attention(f"{theirs}.crossattention", f"{ours}/cross_attention",
                            f"{ours}/cross_norm", place)
    return (layout | dense(f"{theirs}.intermediate.dense", f"{ours}/mlp/wi", place)
            | dense(f"{theirs}.output.dense", f"{ours}/mlp/wo", place)
            | norm(f"{theirs}.output.LayerNorm", f"{ours}/mlp_norm", place))


def head(theirs: str, ours: str) -> Layout:
    """The vocabulary head without its tied output layer."""
    return {f"{theirs}.bias": (Slot(f"{ours}/bias"),),
            **dense(f"{theirs}.transform.dense", f"{ours}/dense"),
            **norm(f"{theirs}.transform.LayerNorm", f"{ours}/norm")}
