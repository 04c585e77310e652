# syntax=docker/dockerfile:1
# Training on TPUs, from a checkout:
#   docker build -f docker/tpu.Dockerfile -t mplug2-tpu .
#   docker run --privileged --net=host --ipc=host -v DATA:/data -v RUNS:/runs mplug2-tpu \
#       --config=configs/msrvtt_caption.py --config.data.root=/data --workdir=/runs/caption
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 1000 mplug2
WORKDIR /home/mplug2/code

COPY requirements/tpu.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --require-hashes --requirement requirements/tpu.txt

COPY mplug2_jax mplug2_jax
COPY configs configs
COPY data data
COPY train.py eval.py predict.py LICENSE ./

USER 1000
# Asked for, so that a machine without one is an error of one line.
ENV JAX_PLATFORMS=tpu,cpu JAX_COMPILATION_CACHE_DIR=/tmp/jax PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "train.py"]
