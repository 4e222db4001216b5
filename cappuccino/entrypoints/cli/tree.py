"""How a Study stands, as a tree of lines: its Dataset, its Trials, its Deployments with candidates, gates and Traders.

Whatever waits says for what; Trials that wait for the same are one line. Built from wire documents alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cappuccino.entrypoints.cli import kinds

Document = Mapping[str, Any]
NAMED = 3  # of those that share a line


@dataclass(frozen=True)
class Node:
    text: str
    children: Sequence[Node] = ()


def rendered(node: Node) -> str:
    return "\n".join([node.text, *_below(node.children, "")])


def study_node(study: Document, dataset: Document | None, trials: Sequence[Document], below: Sequence[Node]) -> Node:
    status = study.get("status") or {}
    best = status.get("best")
    parts = [_standing(study), f"best {best['objective']:.4g} (trial {best['number']})" if best else ""]
    name = study["spec"]["datasetRef"]["name"]
    data = Node(f"{_shown(dataset)}  {_standing(dataset)}" if dataset else f"dataset/{name}  does not exist: apply it")
    return Node(f"{_shown(study)}  {'; '.join(filter(None, parts))}", [data, *_trials(study, trials), *below])


def deployment_node(deployment: Document, traders: Sequence[Document]) -> Node:
    status = deployment.get("status") or {}
    promoted, live = _condition(deployment, "Promoted"), _condition(deployment, "Live")
    by_name = {trader["metadata"]["name"]: trader for trader in traders}
    children = []
    for candidate in status.get("candidates", ()):
        children.append(_candidate(candidate, by_name.pop(candidate.get("trader") or "", None)))
    children += [_trader(trader) for trader in by_name.values()]
    said = [_standing(deployment), *(f"{c['reason']}: {c.get('message', '')}" for c in (promoted, live) if c)]
    return Node(f"{_shown(deployment)}  {'; '.join(filter(None, said))}", children)


# --- lines ------------------------------------------------------------------------------------------


def _below(children: Sequence[Node], indent: str) -> list[str]:
    lines = []
    for index, child in enumerate(children):
        last = index == len(children) - 1
        lines.append(f"{indent}{'└─' if last else '├─'} {child.text}")
        lines += _below(child.children, f"{indent}{'   ' if last else '│  '}")
    return lines


def _trials(study: Document, trials: Sequence[Document]) -> list[Node]:
    counts = (study.get("status") or {}).get("trials")
    if not counts:
        return []
    total = ", ".join(f"{counts[state]} {state}" for state in counts if counts[state]) or "none yet"
    groups: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        if (group := _group(trial)) is not None:
            groups.setdefault(group, []).append(trial["metadata"]["name"])
    order = ("running", "starting", "waiting", "failed")
    lines = [
        Node(f"{len(names)} {state}: {_some(names)}{f': {why}' if why else ''}")
        for (state, why), names in sorted(groups.items(), key=lambda group: (order.index(group[0][0]), group[1]))
    ]
    return [Node(f"trials  {total}", lines)]


def _group(trial: Document) -> tuple[str, str] | None:
    """(what it is doing, why it does no more); None of one that is done."""
    failed, complete = _condition(trial, "Failed"), _condition(trial, "Complete")
    if failed and failed["status"] == "True":
        return "failed", failed.get("message", "")
    if complete and complete["status"] == "True":
        return None
    workload, why = (trial.get("status") or {}).get("workload"), (complete or {}).get("message", "")
    if workload == "Running":
        return "running", ""
    return ("waiting", why) if why else ("starting", "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:NAMED]) + (" ..." if len(names) > NAMED else "")


def _candidate(candidate: Document, trader: Document | None) -> Node:
    name = candidate.get("trader") or candidate["bundleDigest"][:12]
    gates = [
        Node(f"{gate['gate']}  {gate['outcome']}{_against(gate)}: {gate.get('message', '')}".rstrip(": "))
        for gate in candidate.get("gates", ())
    ]
    stopped = f", stopped by {candidate['stoppedBy']}" if candidate.get("stoppedBy") else ""
    return Node(f"candidate {name}  {candidate['verdict']}{stopped}", [*gates, *([_trader(trader)] if trader else [])])


def _against(gate: Document) -> str:
    measured, threshold = gate.get("measured"), gate.get("threshold")
    return "" if measured is None or threshold is None else f" ({measured:.4g} against {threshold:.4g})"


def _trader(trader: Document) -> Node:
    status = trader.get("status") or {}
    halted = status.get("haltedReason")
    figures = [
        f"halted: {halted}" if halted else _standing(trader),
        ("dry run" if trader["spec"].get("dryRun", True) else "LIVE") if trader["spec"].get("mode") == "live" else "",
        trader["spec"]["role"] if trader["spec"].get("role", "candidate") != "candidate" else "",
        f"${status['equityUsd']:,.2f}" if status.get("equityUsd") is not None else "",
        f"drawdown {status['drawdown']:.1%}" if status.get("drawdown") is not None else "",
        f"last bar {status['lastBarAt']}" if status.get("lastBarAt") else "",
    ]
    return Node(f"{_shown(trader)}  {', '.join(filter(None, figures))}")


def _standing(document: Document) -> str:
    """Its condition Ready in words; Stalled first, because then a person must act."""
    stalled, ready = _condition(document, "Stalled"), _condition(document, "Ready")
    if stalled and stalled["status"] == "True":
        return f"STALLED, {stalled['reason']}: {stalled.get('message', '')}"
    if ready is None:
        return "nobody has looked at it yet"
    return ": ".join(filter(None, (ready["reason"], ready.get("message", ""))))


def _condition(document: Document, kind: str) -> Document | None:
    return next((c for c in (document.get("status") or {}).get("conditions", ()) if c["type"] == kind), None)


def _shown(document: Document) -> str:
    return kinds.shown(document["kind"], document["metadata"]["name"])
