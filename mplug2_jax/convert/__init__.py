"""Weights of others to this model's parameters, strictly, and proof that the numbers are the same.

    python -m mplug2_jax.convert official CKPT.pth --config=configs/msrvtt_caption.py --out=DIR
    python -m mplug2_jax.convert bert model.safetensors --config=configs/msrvtt_caption.py --out=DIR
    python -m mplug2_jax.convert clip model.safetensors --config=configs/msrvtt_caption.py --out=DIR
    python -m mplug2_jax.convert verify PREFIX

Files are read by `weights_file`, without PyTorch: `torch_zip`, `torch_legacy` and `torch_pickle`
(`.pth`), `safetensors_file`. `official` with `release_names` and `teacher`, and `hugging_face` with
`clip_names` say which name goes where; `layout` and `fitting` move the numbers.
"""
