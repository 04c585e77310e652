# syntax=docker/dockerfile:1
# Training on GPUs, from a checkout; CUDA comes with the requirements, the driver (580 or newer, 525
# for --build-arg CUDA=12) with the host's container toolkit:
#   docker build -f docker/cuda.Dockerfile -t mplug2-cuda .
#   docker run --gpus=all --ipc=host -v DATA:/data -v RUNS:/runs mplug2-cuda \
#       --config=configs/msrvtt_caption.py --config.data.root=/data --workdir=/runs/caption
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 1000 mplug2
WORKDIR /home/mplug2/code

ARG CUDA=13
COPY requirements/cuda${CUDA}.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --require-hashes --requirement "requirements/cuda${CUDA}.txt"

COPY mplug2_jax mplug2_jax
COPY configs configs
COPY data data
COPY train.py eval.py predict.py LICENSE ./

USER 1000
# What the container toolkit makes visible; and asked for, so that a machine without a GPU is an
# error of one line.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    JAX_PLATFORMS=cuda,cpu JAX_COMPILATION_CACHE_DIR=/tmp/jax PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "train.py"]
