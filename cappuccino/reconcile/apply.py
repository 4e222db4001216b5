"""Carrying out what a Decision asks for. "Already exists" and "not found" are success: the pass may be a repetition."""

from __future__ import annotations

from contextlib import suppress

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
        "audit_append",
    }
)


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
