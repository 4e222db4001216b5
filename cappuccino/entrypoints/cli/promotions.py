"""evidence and promote: what the gates measured of a Deployment's candidates, and a person's approval of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.options import Document
from cappuccino.entrypoints.cli.target import Target

_MEASURED = ("measured", "threshold", "minimum_detectable")
_WORDS_SECONDS = 3.0  # for so long the status may be on its way after the mark
_FIELDS = ("bundle_digest", "gate", "gate_version", "scope", "outcome", *_MEASURED, "message")


@options.targeted
def promote(
    target: Target,
    deployment: Annotated[str, typer.Argument(help="A Deployment: NAME or mdep/NAME.", show_default=False)],
    candidate: Annotated[
        str, typer.Argument(help="Its Trader, trial number or 8 characters of its digest.", show_default=False)
    ],
    reason: options.Reason = "",
    timeout: options.Seconds = 10.0,
) -> None:
    """Approve a candidate that has passed every gate, soak and grade.

    The controller judges: what is missing, and by how much, is the answer of a refusal; `status` and `evidence` show what
    every gate measured. The approval is of the Deployment as it is now, bound to bundle, risk limits, venue and live section,
    and revoked when one of them changes. In a Deployment with a live section it starts a dry run, and nothing is sent before
    spec.live.dryRun is false.

    Examples:

    \b
      cappuccino promote mdep/quickstart quickstart-00002 --reason "read the report of May"
    """
    if not reason.strip():
        raise InvalidInput('promote needs --reason "...": the record keeps who approved what, and why')
    kind, name = kinds.one([deployment]) if "/" in deployment else ("Deployment", deployment)
    if kind != "Deployment":
        raise InvalidInput(f"candidates belong to a Deployment, not to {kinds.shown(kind, name)}: name one, as mdep/quickstart")
    word = candidate.rpartition("/")[2]

    async def run(cluster: Cluster) -> str:
        from cappuccino.controllers.requests import APPROVE
        from cappuccino.entrypoints.asking import acted, ask_for, awaited, last_word
        from cappuccino.reconcile.wake import key_of

        document = await _existing(cluster, name)
        key = key_of(document)
        mark = await ask_for(cluster, document, APPROVE, word, reason=reason, actor=await cluster.user())
        await awaited(cluster, key, lambda now: acted(now, APPROVE, mark), seconds=timeout)
        before = _promoted(document)
        try:
            now = await awaited(
                cluster, key, lambda now: _promoted(now) != before or _is_promoted(now, word), seconds=_WORDS_SECONDS
            )
        except RetryLater:  # the same answer as before
            now = await _existing(cluster, name)
        told = _promoted(now)
        if _is_promoted(now, word):
            return told["message"]
        refusal = told["message"] if told["reason"] == "Refused" else await last_word(cluster, key, "Refused")
        raise InvalidInput(refusal or f"{word} was not promoted: `describe` the Deployment says why")

    typer.echo(ask(target, run))


@options.targeted
def evidence(
    target: Target,
    what: Annotated[list[str], typer.Argument(help="A Deployment: mdep/NAME, or deployment NAME.", show_default=False)],
    output: options.TextOrJson = Document.TEXT,
) -> None:
    """Show what every gate measured on every candidate, against which threshold.

    `detectable` is the smallest effect that the gate could have seen: a miss below it is inconclusive, not a failure. On
    Kubernetes it is what the Deployment's status has: each gate's newest verdict, without what was detectable.

    Examples:

    \b
      cappuccino evidence mdep/quickstart
      cappuccino evidence deployment quickstart -o json
    """
    kind, name = kinds.one(what)
    if kind != "Deployment":
        raise InvalidInput(f"gates belong to a Deployment, not to {kinds.shown(kind, name)}: name one, as mdep/quickstart")

    async def run(cluster: Cluster) -> list[dict[str, Any]]:
        document = await _existing(cluster, name)
        if cluster.record is None:
            return _from_status(document)
        return list(map(_from_row, await cluster.record.evidence(deployment_uid=document["metadata"]["uid"])))

    rows = ask(target, run)
    if output is Document.JSON:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo(f"no evidence yet for {kinds.shown(kind, name)}")
    else:
        from cappuccino.entrypoints.cli.tables import table

        head = ["Bundle", "Gate", "Outcome", "Measured", "Threshold", "Detectable", "Message"]
        body = [
            [row["bundle_digest"][:12], row["gate"], row["outcome"], *(_number(row[m]) for m in _MEASURED), row["message"]]
            for row in rows
        ]
        typer.echo(table(head, body))


# --- parts ------------------------------------------------------------------------------------------


async def _existing(cluster: Cluster, name: str) -> Any:
    from cappuccino.controllers.decision import Key

    document = await cluster.objects.get(Key("Deployment", cluster.namespace, name))
    if document is None:
        raise kinds.absent("Deployment", name, cluster.namespace)
    return document


def _promoted(document: Mapping[str, Any]) -> dict[str, str]:
    """Reason and message of its condition Promoted."""
    conditions = (document.get("status") or {}).get("conditions", ())
    found: Mapping[str, str] = next((c for c in conditions if c["type"] == "Promoted"), {})
    return {name: found.get(name, "") for name in ("reason", "message")}


def _is_promoted(document: Mapping[str, Any], word: str) -> bool:
    from cappuccino.api.deployment import CandidateStatus
    from cappuccino.controllers.promotion import find

    listed = [CandidateStatus.model_validate(c) for c in (document.get("status") or {}).get("candidates", ())]
    chosen = find(listed, word)
    return chosen is not None and chosen.verdict == "Promoted"


def _from_status(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As rows of the record, as far as a status has them."""
    return [
        {"bundle_digest": candidate["bundleDigest"], "gate": gate["gate"], "outcome": gate["outcome"]}
        | {name: gate.get(name) for name in _MEASURED}
        | {"message": gate.get("message", "")}
        for candidate in (document.get("status") or {}).get("candidates", ())
        for gate in candidate.get("gates", ())
    ]


def _from_row(row: Any) -> dict[str, Any]:
    from cappuccino.core.clock import iso

    found = {name: getattr(row, name) for name in _FIELDS}
    return found | {"detail": dict(row.detail), "recorded_at": iso(row.recorded_at) if row.recorded_at else None}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
