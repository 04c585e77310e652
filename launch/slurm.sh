#!/bin/bash
# Slurm: one node or many, one process a GPU; the job queues itself again where that helps.
#
#   sbatch --nodes=1 launch/slurm.sh --config=CONFIG --workdir=/shared/runs/NAME
#   sbatch --nodes=16 launch/slurm.sh --config=CONFIG --workdir=/shared/runs/NAME \
#       --config.mesh.fsdp=-1
#
# Two minutes before the end of its time a job gets SIGUSR1, and saves (without `B:` it goes to the
# tasks, not to this script). Slurm itself queues it again where a node fails.
#SBATCH --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12
#SBATCH --signal=USR1@120 --requeue --open-mode=append

# Coordinator and process ids: from Slurm. Process 0 listens on the first node of the step, at port
# 61440 + the job's number modulo 4096: those ports must be open between nodes. A task takes the GPU
# of its number on the node; do not bind GPUs to tasks besides (--gpus-per-task, --gpu-bind), for
# then each would see one GPU, number 0, and look for another.

# Network: where nodes have several, NCCL may take a slow one. Name the one that all share:
# export NCCL_SOCKET_IFNAME=ib0

# A process has its GPU alone; JAX would leave a quarter of the memory to others.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
# With mesh.fsdp, a layer's weights are gathered and gradients scattered while another computes.
export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true $XLA_FLAGS"

# Tasks end by themselves when one of them does (--lost_after) and say why, so srun need not kill
# them. Since Slurm 22.05 srun does not take over --cpus-per-task by itself.
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "${PYTHON:-.venv/bin/python}" train.py --grace=100 "$@"
code=$?

# The largest code of the tasks. Again where the same command may end better (docs/reliability.md),
# though not for ever.
case $code in
    3|4|5)
        if [ "${SLURM_RESTART_COUNT:-0}" -lt "${RESTARTS:-100}" ]; then
            scontrol requeue "$SLURM_JOB_ID"
        fi ;;
esac
exit $code
