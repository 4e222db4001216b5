"""From a bundle to what decides, and the checks that need to know the kind.

| kind | parameters | files |
|---|---|---|
| policy | network, hidden, layers (see `network`) | policy.onnx, weights.safetensors |
| trend | the rule's, as text (see `strategies.trend`) | |
| hold, cash | none | |
| ensemble | source_study, vote, members (digests), weights | members/{digest}/..., each a whole bundle |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cappuccino.bundle.format import Bundle, pack, unpack
from cappuccino.bundle.network import GRAPH, verify_policy
from cappuccino.core.errors import IntegrityError, InvalidInput
from cappuccino.strategies.cash import Cash
from cappuccino.strategies.ensemble import Ensemble, Vote
from cappuccino.strategies.hold import Hold
from cappuccino.strategies.interface import Strategy
from cappuccino.strategies.policy import Policy
from cappuccino.strategies.trend import Trend, TrendParameters

_ENSEMBLE_PARAMETERS = {"source_study", "vote", "members", "weights"}


def strategy_of(bundle: Bundle) -> Strategy:
    """What decides. Bundles from `store.load` are verified and give no error.

    Raises:
        IntegrityError: the kind's parameters or files are not what they must be.
    """
    try:
        return _built(bundle)
    except (InvalidInput, KeyError, TypeError) as error:
        raise IntegrityError(f"{bundle.kind} bundle {bundle.digest}: {error}") from error


def verify(bundle: Bundle) -> None:
    """Every check that goes beyond digests and schema.

    Raises:
        IntegrityError: names file and value.
    """
    if bundle.kind == "policy":
        verify_policy(bundle.parameters, bundle.contract, bundle.files, bundle.card)
    elif bundle.kind == "ensemble":
        for member in members(bundle):
            verify(member)
    elif bundle.files:
        raise IntegrityError(f"{bundle.kind} bundle {bundle.digest}: files {', '.join(bundle.files)}: this kind has none")
    if bundle.kind in ("hold", "cash") and bundle.parameters:
        raise IntegrityError(f"{bundle.kind} bundle {bundle.digest}: parameters {dict(bundle.parameters)}: this kind has none")
    strategy_of(bundle)


def members(bundle: Bundle) -> tuple[Bundle, ...]:
    """The bundles of an ensemble, in the order of their votes.

    Raises:
        IntegrityError: a member's folder is not its digest's, or a folder is no member's.
    """
    digests: Sequence[str] = bundle.parameters.get("members", ())
    folders: dict[str, dict[str, bytes]] = {digest: {} for digest in digests}
    for name, body in bundle.files.items():
        _, _, rest = name.partition("members/")
        digest, _, inner = rest.partition("/")
        if not name.startswith("members/") or digest not in folders:
            raise IntegrityError(f"ensemble bundle {bundle.digest}: file {name} belongs to no member: make the bundle again")
        folders[digest][inner] = body
    return tuple(
        unpack(folder, folder.__getitem__, digest=digest, where=f"member {digest}") for digest, folder in folders.items()
    )


def ensemble_of(
    bundles: Sequence[Bundle],
    *,
    vote: Vote,
    source_study: str,
    weights: Sequence[float] = (),
    card: Mapping[str, Any] | None = None,
) -> Bundle:
    """One bundle out of several of one Study, traded as its members are.

    Args:
        source_study: uid of the Study that the members come from.
        weights: the members' in a `mean` vote; empty: all alike.

    Raises:
        InvalidInput: no members, one twice, members that trade differently, no source study.
    """
    digests = [bundle.digest for bundle in bundles]
    if len(set(digests)) != len(digests):
        raise InvalidInput(f"ensemble: a member is named twice in {', '.join(digests)}: name each once")
    terms = {(bundle.sizing, bundle.barriers, repr(bundle.costs), bundle.capital_usd) for bundle in bundles}
    if len(terms) > 1:
        raise InvalidInput("ensemble: members differ in sizing, barriers, costs or capital: take those of one Study")
    ensemble = Ensemble(
        members=tuple(strategy_of(bundle) for bundle in bundles),
        vote=vote,
        source_study=source_study,
        weights=tuple(float(weight) for weight in weights),
    )
    first = bundles[0]
    return Bundle(
        kind="ensemble",
        contract=ensemble.contract,
        sizing=first.sizing,
        barriers=first.barriers,
        costs=first.costs,
        capital_usd=first.capital_usd,
        parameters={"source_study": source_study, "vote": vote, "members": digests, "weights": list(ensemble.weights)},
        files={f"members/{bundle.digest}/{name}": body for bundle in bundles for name, body in pack(bundle).items()},
        card=card or {},
    )


def _built(bundle: Bundle) -> Strategy:
    parameters = bundle.parameters
    if bundle.kind == "policy":
        return Policy(contract=bundle.contract, sizing=bundle.sizing, model=bundle.files[GRAPH])
    if bundle.kind == "trend":
        if not all(isinstance(value, str) for value in parameters.values()):
            raise InvalidInput(f"parameters {dict(parameters)} must be text")
        return Trend(contract=bundle.contract, parameters=TrendParameters.parse(parameters), sizing=bundle.sizing)
    if bundle.kind == "hold":
        return Hold(contract=bundle.contract)
    if bundle.kind == "cash":
        return Cash(contract=bundle.contract)
    if set(parameters) != _ENSEMBLE_PARAMETERS:
        raise InvalidInput(f"parameters {', '.join(parameters) or 'none'}: it has {', '.join(sorted(_ENSEMBLE_PARAMETERS))}")
    ensemble = Ensemble(
        members=tuple(strategy_of(member) for member in members(bundle)),
        vote=parameters["vote"],
        source_study=parameters["source_study"],
        weights=tuple(parameters["weights"]),
    )
    if ensemble.contract != bundle.contract:
        raise InvalidInput("the contract is not that of its members: make the bundle again")
    return ensemble
