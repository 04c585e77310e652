"""Pretraining that logs which record each row of a step is: a task of one's own."""

from mplug2_jax.tasks import pretrain


class ToldRows(pretrain.Pretrain):
    """Pretraining, with a metric `row/stream/N` beside the others."""

    def loss(self, params, batch, rng, task_state=None, step=0):
        value, (metrics, carry) = super().loss(params, batch, rng, task_state, step)
        rows = {f"row/{stream}/{row}": number for stream, fields in batch.items()
                for row, number in enumerate(fields["pair_id"])}
        return value, (metrics | rows, carry)
