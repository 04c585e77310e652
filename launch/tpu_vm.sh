#!/bin/bash
# A TPU VM, or a pod slice of them: one process a host, on all hosts at once.
#
#   TPU=NAME ZONE=ZONE launch/tpu_vm.sh --config=CONFIG --workdir=/shared/runs/NAME \
#       --config.mesh.fsdp=-1
#
# The project lies in ~/mplug2_jax of each host, the work folder in a bucket or in a file system that
# all of them mount. Once, for Ubuntu 22.04 has Python 3.10 and uv brings a newer one:
#
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="pip install uv && \
#       git clone URL mplug2_jax && cd mplug2_jax && ~/.local/bin/uv venv --python=3.12 .venv && \
#       ~/.local/bin/uv pip install --require-hashes -r requirements/tpu.txt"
#
# The run goes on when this terminal ends; to look at it, and to stop it where it is saved:
#
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=0 --command="tail -f train.log"
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="pkill -f '[t]rain.py'"

# Coordinator and process ids: from the metadata of the machines, which JAX asks. Process 0 listens
# on worker 0 at port 8482, which the hosts of a slice can reach.
# Network: the chips of a slice have one of their own (ICI). Between slices lies that of the hosts,
# so give `mesh.data` a multiple of the slices.
# XLA flags: none. What the step needs it is compiled with (mplug2_jax/parallel/mesh.py).

# Each host starts its own process again, where the same command may end better; code 4 is a stop
# that somebody wanted. After a loss all of them come here within --lost_after, and wait for each
# other (--join_timeout).
train="until .venv/bin/python train.py $(printf '%q ' "$@"); do
    code=\$?
    case \$code in 3|5) sleep ${PAUSE:-10} ;; *) exit \$code ;; esac
done"
# Without nohup a connection that breaks would end the run.
there="cd mplug2_jax && nohup bash -c $(printf '%q' "$train") > ~/train.log 2>&1 < /dev/null &"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$there"
