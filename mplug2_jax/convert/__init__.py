"""Weights of others to this model's parameters, strictly, and proof that the numbers are the same.

    python -m mplug2_jax.convert official CKPT.pth --config=configs/msrvtt_caption.py --out=DIR
    python -m mplug2_jax.convert bert model.safetensors --config=configs/msrvtt_caption.py --out=DIR
    python -m mplug2_jax.convert clip model.safetensors --config=configs/msrvtt_caption.py --out=DIR
    python -m mplug2_jax.convert verify PREFIX

Files are read by `torch_zip` (released `.pth`) and `safetensors_file`, without PyTorch; `official`
and `hugging_face` say which name goes where; `layout` moves the numbers.
"""
