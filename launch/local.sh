#!/bin/bash
# Several processes on this machine: a GPU each, or simulated devices to try a mesh without any.
#
#   PROCESSES=8 launch/local.sh --config=CONFIG --workdir=runs/NAME --config.mesh.fsdp=-1
#   PROCESSES=2 DEVICES=4 launch/local.sh --config=CONFIG --workdir=runs/NAME --config.mesh.fsdp=-1
#
# One process may as well have all GPUs; several have less of Python each.
#
# Coordinator and process ids: the launcher takes a free port of localhost and tells each process by
# JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. The same three, set by hand with
# process 0's address, start a run on any cluster.
# Network: none is crossed.

# A process has its GPUs alone; JAX would leave a quarter of the memory to others.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
# XLA flags: those of launch/slurm.sh where the processes have GPUs.

exec "${PYTHON:-.venv/bin/python}" -m mplug2_jax.launch --processes="${PROCESSES:?how many}" \
    --devices="${DEVICES:-0}" -- train.py "$@"
