"""Records that cannot be used: counted, listed, and too many of them end the run."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import DataError, RecordError

_LISTED = 100_000  # records remembered, so that a long run's memory stays flat
_FEWEST = 1_000  # samples over which the share of skipped ones is judged, at least


class Report:
    """What happened while a batch was made; it travels with it, also out of worker processes."""

    def __init__(self):
        self.samples: Counter[str] = Counter()  # records tried, by source
        self.skipped: list[tuple[str, str, str, str]] = []  # source, record, reason, message
        self.failure = ""  # why there is no batch

    @classmethod
    def joined(cls, reports: Iterable["Report"]) -> "Report":
        """What happened while the parts of a batch were made, in their order."""
        whole = cls()
        for one in reports:
            whole.samples.update(one.samples)
            whole.skipped += one.skipped
            whole.failure = whole.failure or one.failure
        return whole

    def skip(self, source: str, record_id: str, error: RecordError) -> None:
        """Notes a record that could not be used."""
        self.skipped.append((source, record_id, error.reason, str(error)))


class SkipLog:
    """Counts the records that could not be used, and lists each once.

    Args:
        max_share: of a source's samples that may be skipped before `check` raises; 1 for any.
        path: a file to which each skipped record is appended as a line of JSON; None for none.

    Attributes:
        counts: Counter of (source, reason): how many times a record was skipped; a record counts
            each time it comes up.
        samples: Counter of source: how many times a record was tried.
        records: {source: {record id: message}}.
    """

    def __init__(self, max_share: float = 0.05, path: str | Path | None = None):
        self.counts: Counter[tuple[str, str]] = Counter()
        self.samples: Counter[str] = Counter()
        self.records: dict[str, dict[str, str]] = {}
        self._max_share = max_share
        self._path = None if path is None else paths.parse(path)
        self._file: Any = None  # of a bucket

    def add(self, report: Report) -> None:
        """Counts what was tried and what was skipped for one batch."""
        self.samples.update(report.samples)
        for source, record_id, reason, message in report.skipped:
            self.counts[source, reason] += 1
            seen = self.records.setdefault(source, {})
            if record_id not in seen and len(seen) < _LISTED:
                seen[record_id] = message
                logging.warning("skipping record %r of %s: %s", record_id, source, message)
                self._list({"source": source, "id": record_id, "problem": message})
        self._list()

    def settle(self) -> None:
        """Sees that the list is whole: in a bucket it is written now and then."""
        self._list(now=True)

    def _list(self, line: dict[str, str] | None = None, now: bool = False) -> None:
        """Adds a line to the list; one in a bucket is written when it is time, or `now`."""
        if self._path is None:
            return
        try:
            if line and not paths.in_bucket(self._path):
                paths.add(self._path, json.dumps(line))
            elif line:
                self._file = self._file or paths.append(self._path)
                self._file.write(json.dumps(line) + "\n")
            if self._file is not None:
                (self._file.settle if now else self._file.flush)()
        except OSError as error:  # the run is worth more than its list
            logging.warning("%s is not written any more: %s", self._path,
                            error.strerror or error)
            self._path = self._file = None

    def total(self, source: str | None = None) -> int:
        """Records skipped so far, for all reasons, of one source or of all."""
        return sum(n for (name, _), n in self.counts.items() if source in (None, name))

    def report(self) -> None:
        """Logs how many of each source were skipped, and why."""
        for (source, reason), count in sorted(self.counts.items()):
            logging.warning("skipped %d of %s: %s", count, source, reason)

    def check(self) -> None:
        """Raises DataError if more than the allowed share of a source was skipped.

        Below 1,000 samples the share is of 1,000: a few bad records at the start end no run.
        """
        for source, samples in self.samples.items():
            skipped = self.total(source)
            if skipped > self._max_share * max(samples, _FEWEST):
                reasons = Counter({r: n for (name, r), n in self.counts.items() if name == source})
                said = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
                raise DataError(
                    f"{skipped} of {samples} samples of {source} could not be used ({said}), more "
                    f"than data.max_skipped={self._max_share:g}: mend the data, or allow more"
                )
