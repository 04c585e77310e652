"""Plans a training run for a TPU topology without a TPU: memory, FLOPs, collectives, step time.

    python -m mplug2_jax.aot --config=configs/pretrain.py:large --topology=v5e:16x16 \\
        --global_batch=32768

compiles the run's own step for that topology, with libtpu from PyPI. Exit code 0 if it fits, 1 if
not (with the amount and the largest buffers), 2 for wrong flags or a wrong config.
"""
