"""Carrying out what a Decision asks for. "Already exists" and "not found" are success: the pass may be a repetition.

Actions are in order, but that neighbours which make or end objects go out together: a Study may begin with hundreds of Trials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby, islice

from cappuccino.controllers.decision import (
    Action,
    ApplyObject,
    CreateObject,
    DeleteObject,
    PatchMetadata,
    StartWorkload,
    StopWorkload,
    WriteRecord,
)
from cappuccino.core import failpoints
from cappuccino.core.errors import Conflict, InvariantViolation, NotFound
from cappuccino.reconcile.ports import Ports

RECORD_OPERATIONS = frozenset(
    {
        "register_snapshot",
        "record_gaps",
        "pin_study",
        "insert_trials",
        "set_trial_state",
        "record_promotion",
        "halt",
        "resume",
    }
)

TOGETHER = 16  # requests at a time


async def apply_all(actions: Iterable[Action], ports: Ports) -> None:
    """Raises what the first of those that failed raised; what went out with it has ended by then, and nothing came after."""
    for batch in _batches(actions):
        for _ in batch:
            failpoints.reach("reconcile-write")
        ended = await asyncio.gather(*(apply(action, ports) for action in batch), return_exceptions=True)
        for outcome in ended:
            if outcome is not None:
                raise outcome


def _batches(actions: Iterable[Action]) -> Iterator[tuple[Action, ...]]:
    for kind, alike in groupby(actions, key=type):
        size = TOGETHER if kind in (CreateObject, DeleteObject) else 1
        while batch := tuple(islice(alike, size)):
            yield batch


async def apply(action: Action, ports: Ports) -> None:
    """Raises what the ports raise, but for existence; InvariantViolation for a record operation that is none."""
    match action:
        case CreateObject(document=document):
            with suppress(Conflict):
                await ports.objects.create(document)
        case ApplyObject(document=document):
            await ports.objects.apply(document)
        case DeleteObject(key=key, uid=uid):
            with suppress(NotFound):
                await ports.objects.delete(key, uid=uid)
        case PatchMetadata():
            with suppress(NotFound):
                await ports.objects.patch_metadata(
                    action.key,
                    uid=action.uid,
                    annotations=action.annotations,
                    labels=action.labels,
                    finalizers=action.finalizers,
                )
        case StartWorkload(workload=workload):
            await ports.workloads.start(workload)
        case StopWorkload(name=name, grace_seconds=grace_seconds):
            with suppress(NotFound):
                await ports.workloads.stop(name, grace_seconds=grace_seconds)
        case WriteRecord(operation=operation, arguments=arguments):
            if operation not in RECORD_OPERATIONS:
                raise InvariantViolation(f"record operation {operation!r} is not one that a controller may ask for")
            await getattr(ports.record, operation)(**arguments)
