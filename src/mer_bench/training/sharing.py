"""The part of a bench's runs that is left to it by other benches on the same results folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mer_bench.errors import Misuse
from mer_bench.records import FAILED, RunSpec
from mer_bench.training.claims import Claims, lock_path, maker
from mer_bench.training.execute import Job, earlier_record


class SharedQueue:
    """Those runs of a queue that no other bench makes: iterating claims each one before it is given out.

    When all others are given out, those that were being made by another bench are looked at again, as long as it gives
    some of them back without a record. Runs on several machines are given out in any case, since those must agree.

    Args:
        queue: Runs without a record.
        results: Folder of the records.
        missing: Gives those of some runs that still have to be made.
        claims: Holds the runs that are given out.
        fail: Called with each run whose lock or record cannot be used, and with the reason.
    """

    def __init__(
        self,
        queue: Sequence[RunSpec],
        results: Path,
        missing: Callable[[Sequence[RunSpec]], list[RunSpec]],
        claims: Claims,
        fail: Callable[[RunSpec, str], None],
    ) -> None:
        self.queue, self.results, self.missing, self.claims, self.fail = queue, results, missing, claims, fail
        self.recorded = 0  #: runs that another bench has recorded meanwhile
        self.failed: list[RunSpec] = []  #: runs that failed in another bench meanwhile
        self._held: Sequence[RunSpec] = ()  # by another bench
        self._notes = {spec.sha256: self._note(spec) for spec in queue}

    def __iter__(self) -> Iterator[Job]:
        self._held = self.queue
        while self._held:
            ahead, self._held = self._held, []
            for spec in ahead:
                try:
                    if spec.num_nodes == 1 and not self.claims.take(spec):
                        self._held.append(spec)
                    elif self._done_elsewhere(spec):  # between the look at the queue and the claim
                        self.claims.give_back(spec)
                    else:
                        yield spec, earlier_record(spec, self.results)
                except Misuse as error:
                    self.claims.give_back(spec)
                    self.fail(spec, str(error))
            if len(self._held) == len(ahead):
                return

    def close(self) -> list[str]:
        """Look once more at the runs that were not given out; returns sentences about what has become of them."""
        open_ = [spec for spec in self._held if not self._done_elsewhere(spec)]
        being_made = [spec for spec in open_ if lock_path(spec, self.results).exists()]
        makers = sorted({maker(spec, self.results) for spec in being_made})
        left = len(open_) - len(being_made)
        sentences = {
            "recorded by another bench meanwhile": self.recorded,
            f"still being made by another bench ({', '.join(makers)})": len(being_made),
            "left without a record by another bench; the next bench makes them": left,
        }
        return [f"{number} runs {fate}" for fate, number in sentences.items() if number]

    def _done_elsewhere(self, spec: RunSpec) -> bool:
        if not self.missing([spec]):
            self.recorded += 1
        elif self._note(spec) not in (None, self._notes[spec.sha256]):
            self.failed.append(spec)
        else:
            return False
        return True

    def _note(self, spec: RunSpec) -> int | None:
        """When the note of a failure was written."""
        path = spec.path(self.results)
        with suppress(OSError):
            return path.with_name(path.stem + FAILED).stat().st_mtime_ns
        return None
