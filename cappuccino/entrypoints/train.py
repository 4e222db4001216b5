"""`cappuccino train`: run trials of a Study, each to one result row.

Several trials are a pack: those of one shape are fitted together, fold after fold, as one batched model (fitting.py). Shapes
that differ, and rules, which are not fitted, come one after another. A trial that has finished meanwhile, by the pruner
say, leaves its place to the others. Every result row is committed before exit 0. Killed, a pack goes on where it was: fits
that are done and the running one are kept as checkpoints.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.engine import open_pool
from cappuccino.adapters.postgres.trials import TrialWriter
from cappuccino.api.study import StudySpec
from cappuccino.controllers.rows import StudyRow
from cappuccino.core.blobs import Blobs
from cappuccino.core.errors import PREEMPTED_EXIT_CODE, RetryLater, UserError
from cappuccino.entrypoints.fitting import Fit, Fitter, Group, Member, checkpoints, forget, shape_of
from cappuccino.entrypoints.recipe import Prepared, prepare, recipe
from cappuccino.entrypoints.settings import WorkerSettings
from cappuccino.entrypoints.trial import Trial, failure
from cappuccino.market import store
from cappuccino.market.bars import Bars
from cappuccino.search.trials import TrialResult
from cappuccino.telemetry.logs import configure, get_logger
from cappuccino.telemetry.traces import exported, span

ASK_SECONDS = 2.0  # between two questions to the record which trials have finished


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="cappuccino train", description=__doc__)
    parser.add_argument("--study-uid", required=True)
    parser.add_argument("--trials", required=True, help="numbers with commas between: 3,4,5")
    options = parser.parse_args(argv)
    configure(process="train")
    settings = WorkerSettings.read()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    blobs = open_blobs(settings.artifacts_url)
    numbers = [int(text) for text in options.trials.split(",")]
    with exported("train"), open_pool(settings.database_url, "trial", max_size=1) as pool:
        try:
            with span("trial", study_uid=options.study_uid, numbers=options.trials):
                run_trials(TrialWriter(pool), blobs, options.study_uid, numbers, should_stop=stop.is_set)
        except RetryLater as error:
            if stop.is_set():
                get_logger("train").info("preempted", trials=options.trials, reason=str(error))
                return PREEMPTED_EXIT_CODE
            raise
    return 0


def run_trials(
    journal: TrialWriter, blobs: Blobs, study_uid: str, numbers: Sequence[int], *, should_stop: Callable[[], bool]
) -> None:
    """Every trial to its result, which is stored; one that has finished already is left as it is."""
    pack = Pack(journal, blobs, study_uid, numbers, should_stop)
    for group in pack.groups():
        pack.run(group)


class Pack:
    """The trials of one worker. `finished` are those with a final state in the record or a result of theirs."""

    def __init__(
        self, journal: TrialWriter, blobs: Blobs, study_uid: str, numbers: Sequence[int], should_stop: Callable[[], bool]
    ) -> None:
        self._journal, self._blobs, self._should_stop = journal, blobs, should_stop
        self._study: StudyRow = journal.study(study_uid)
        self._spec = StudySpec.model_validate(self._study.spec)
        self._rows = {number: journal.trial(study_uid, number) for number in numbers}
        self._finished = {row.number for row in self._rows.values() if row.finished or row.result is not None}
        self._asked_at = time.monotonic()
        for number in self._finished:
            self._forget(number)

    def groups(self) -> list[Group]:
        """By shape, in the order of their first trials. A trial whose parameters are wrong has its result now."""
        groups: dict[tuple[Any, ...], list[Member]] = {}
        for row in self._rows.values():
            try:
                made = recipe(self._spec, row.parameters)
                shape = shape_of(made)
            except UserError as error:
                if row.number not in self._finished:
                    self._end(row.number, failure(error))
                continue
            groups.setdefault(shape, []).append(Member(row=row, made=made))
        return [Group(members=members) for members in groups.values()]

    def run(self, group: Group) -> None:
        """All trials of a group in step: each asks for its next fit; those that ask for the same one are fitted together."""
        members = {member.number: member for member in group.members if member.number not in self._finished}
        if not members:
            return
        try:
            market = prepare(self._bars, group.members[0].made.contract)
        except UserError as error:
            for number in members:
                self._end(number, failure(error))
            return
        fitter = Fitter(
            group,
            market,
            self._blobs,
            checkpoint_seconds=self._spec.template.checkpoint_seconds,
            should_stop=self._should_stop,
            finished=self._who_finished,
        )
        walks = {number: self._trial(member, market, group).run() for number, member in members.items()}
        asked: dict[int, Fit] = {}
        for number, walk in walks.items():
            self._stop_if_told()
            self._advance(number, asked, walk.__next__)
        while asked:
            self._stop_if_told()
            fit = min(asked.values(), key=lambda fit: fit.step)
            asking = [number for number in asked if asked[number] == fit]
            for number, files in zip(asking, fitter.fit([members[number] for number in asking], fit), strict=True):
                if files is None:
                    continue
                if isinstance(files, UserError):
                    self._advance(number, asked, partial(walks[number].throw, files))
                else:
                    self._advance(number, asked, partial(walks[number].send, files))
            for number in asked.keys() & self._who_finished():
                del asked[number]
                self._forget(number)
        forget(self._blobs, group.checkpoints)

    @cached_property
    def _bars(self) -> Bars:
        return store.read(self._blobs, store.load_manifest(self._blobs, self._study.snapshot))

    def _trial(self, member: Member, market: Prepared, group: Group) -> Trial:
        def report(step: int, value: float) -> None:
            self._journal.report(self._study.uid, member.number, step=step, value=value)

        together = tuple(other.number for other in group.members)
        return Trial(member, market, self._study, self._spec, self._blobs, report=report, together=together)

    def _advance(self, number: int, asked: dict[int, Fit], resume: Callable[[], Fit]) -> None:
        """To the trial's next fit, or to its result."""
        try:
            asked[number] = resume()
        except StopIteration as end:
            asked.pop(number, None)
            self._end(number, end.value)

    def _end(self, number: int, result: TrialResult) -> None:
        self._journal.finish(self._study.uid, number, result)
        self._finished.add(number)
        self._forget(number)

    def _forget(self, number: int) -> None:
        forget(self._blobs, checkpoints(self._rows[number]))

    def _stop_if_told(self) -> None:
        if self._should_stop():
            raise RetryLater("told to end between two fits: start it again to resume")

    def _who_finished(self) -> Collection[int]:
        """A trial alone is stopped with its process; in a pack the record is asked."""
        if len(self._rows) > 1 and time.monotonic() - self._asked_at >= ASK_SECONDS:
            self._asked_at = time.monotonic()
            with suppress(RetryLater):  # a record that is away stops nobody before the next report
                self._finished |= self._journal.finished(self._study.uid, tuple(self._rows))
        return self._finished
