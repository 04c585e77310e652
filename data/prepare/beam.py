"""The shards of a plan, written by the workers of an Apache Beam runner.

Beam is an optional requirement (`requirements-beam.txt`). The raw folder and the output folder must
be seen by all workers under the same paths, and the workers must have this project installed.
"""

from data.prepare import shards
from mplug2_jax.contracts.errors import DataError


def run(jobs: list[tuple[str, str, int]], runner: str, options: list[str]) -> None:
    """Writes all shards; each is one element, so that a runner spreads and retries them singly.

    Args:
        jobs: arguments of `shards.write_shard`.
        runner: name of a Beam runner, such as DirectRunner.
        options: the runner's own, as on its command line: `['--direct_num_workers=2', ...]`.

    Raises:
        DataError: Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise DataError(
            "--beam_runner needs Apache Beam: pip install -r requirements-beam.txt"
        ) from error
    pipeline_options = PipelineOptions(options, runner=runner)
    with beam.Pipeline(options=pipeline_options) as pipeline:
        _ = (
            pipeline
            | "shards" >> beam.Create(jobs)
            # Without it a runner fuses creating and writing, on a single worker.
            | "spread" >> beam.Reshuffle()
            | "write" >> beam.MapTuple(shards.write_shard)
        )
