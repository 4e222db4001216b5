"""The format of a bundle (schema `cappuccino/bundle/v1`): a folder, named by what is in it.

`manifest.json` says what decides (kind, contract, parameters), how it is traded (sizing, barriers, costs, capital)
and names every other file with its SHA-256 and size. The bundle's digest is the SHA-256 of the manifest, which is
canonical JSON: one content has one spelling, and so one digest. `card.json` tells where the bundle comes from (study
uid, trial number, snapshot, seeds, scores); neither holds a timestamp, so that training again gives the same digest.

`unpack` trusts nothing: a byte changed anywhere, a file cut, missing or added, a schema or field that it does not know
is an IntegrityError that names the file and the value. What the files mean is checked in `strategy` and `network`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from cappuccino.core.errors import IntegrityError, InvalidInput
from cappuccino.core.identifiers import canonical_json, sha256_hex
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import Costs
from cappuccino.market.spec import FeatureSpec
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract

SCHEMA = "cappuccino/bundle/v1"
MANIFEST, CARD = "manifest.json", "card.json"
Kind = Literal["policy", "trend", "hold", "cash", "ensemble"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TIMESTAMPS = frozenset({"created_at", "started_at", "finished_at", "recorded_at", "trained_at", "saved_at"})
REMEDY = "fetch the bundle again or train it anew"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_KEYS = frozenset(
    {"schema", "kind", "contract", "parameters", "sizing", "barriers", "costs", "capital_usd", "files"},
)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What is traded. `parameters`, `files` and `card` are what the kind asks for (see `strategy`).

    files: contents by name relative to the bundle, without manifest and card.

    Raises:
        InvalidInput: a value out of its range, a file name that could leave the folder, a timestamp in the card.
    """

    kind: Kind
    contract: Contract
    sizing: Sizing
    barriers: Barriers
    costs: Costs
    capital_usd: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # As JSON gives them back, so that a bundle equals itself after a round trip.
        for name in ("parameters", "card"):
            object.__setattr__(self, name, json.loads(canonical_json(dict(getattr(self, name)))))
        _check_values(self)

    @cached_property
    def manifest(self) -> bytes:
        """The canonical JSON of `manifest.json`."""
        others = {CARD: canonical_json(self.card), **self.files}
        return canonical_json(
            {
                "schema": SCHEMA,
                "kind": self.kind,
                "contract": _contract_to_json(self.contract),
                "parameters": self.parameters,
                "sizing": _numbers(asdict(self.sizing)),
                "barriers": _numbers(asdict(self.barriers), whole=("max_hold_bars",)),
                "costs": _numbers(asdict(self.costs)),
                "capital_usd": float(self.capital_usd),
                "files": {name: {"sha256": sha256_hex(body), "size": len(body)} for name, body in others.items()},
            }
        )

    @cached_property
    def digest(self) -> str:
        return sha256_hex(self.manifest)


def pack(bundle: Bundle) -> dict[str, bytes]:
    """Every file of the folder by name, the manifest last: without it there is no bundle."""
    return {CARD: canonical_json(bundle.card), **bundle.files, MANIFEST: bundle.manifest}


def unpack(names: Collection[str], read: Callable[[str], bytes], *, digest: str, where: str) -> Bundle:
    """The bundle in a folder that holds `names`, which `read` opens. `where` begins the message.

    Raises:
        IntegrityError: the folder is not, byte for byte, what the digest stands for.
    """
    if MANIFEST not in names:
        raise IntegrityError(f"{where}: {MANIFEST} is missing, {len(names)} other files are there: {REMEDY}")
    raw = read(MANIFEST)
    actual = sha256_hex(raw)
    if actual != digest:
        raise IntegrityError(f"{where}: {MANIFEST} has SHA-256 {actual}, the bundle is addressed as {digest}: {REMEDY}")
    manifest = _parse(raw, f"{where}: {MANIFEST}")
    declared = manifest["files"]
    for name in sorted(set(declared) - set(names)):
        raise IntegrityError(f"{where}: {name} is missing, the manifest declares it: {REMEDY}")
    for name in sorted(set(names) - set(declared) - {MANIFEST}):
        raise IntegrityError(f"{where}: {name} is not in the manifest: remove the file, or {REMEDY}")
    contents = {name: _verified(name, read(name), declared[name], where) for name in declared}
    try:
        bundle = Bundle(
            kind=manifest["kind"],
            contract=_contract_from_json(manifest["contract"]),
            parameters=manifest["parameters"],
            sizing=Sizing(**manifest["sizing"]),
            barriers=Barriers(**manifest["barriers"]),
            costs=Costs(**manifest["costs"]),
            capital_usd=manifest["capital_usd"],
            files={name: body for name, body in contents.items() if name != CARD},
            card=json.loads(contents[CARD]),
        )
        respelled = bundle.manifest
    except (InvalidInput, KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{where}: {MANIFEST} does not fit {SCHEMA} ({error}): {REMEDY}") from error
    if respelled != raw:
        ours = json.loads(respelled)
        fields = sorted(key for key in ours if canonical_json(ours[key]) != canonical_json(manifest[key]))
        raise IntegrityError(
            f"{where}: {MANIFEST} does not fit {SCHEMA} ({', '.join(fields) or 'spelling'}: not canonical): {REMEDY}"
        )
    return bundle


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        raise IntegrityError(f"{where} is not JSON ({error}): {REMEDY}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise IntegrityError(f"{where} has schema {found!r}, this version reads {SCHEMA}: take a version that knows it")
    if set(manifest) != _KEYS:
        odd = sorted(set(manifest) ^ _KEYS)
        raise IntegrityError(f"{where}: fields {', '.join(odd)} are missing or unknown in {SCHEMA}: {REMEDY}")
    if manifest["kind"] not in KINDS:
        raise IntegrityError(f"{where}: kind {manifest['kind']!r} is unknown: this version reads {', '.join(KINDS)}")
    files = manifest["files"]
    if not isinstance(files, dict) or CARD not in files or not all(_NAME.fullmatch(name) for name in files):
        raise IntegrityError(f"{where}: files {files!r} must name {CARD} and stay inside the bundle: {REMEDY}")
    return manifest


def _verified(name: str, body: bytes, declared: Any, where: str) -> bytes:
    if not isinstance(declared, dict) or set(declared) != {"sha256", "size"}:
        raise IntegrityError(f"{where}: {MANIFEST} declares {name} as {declared!r}, not as sha256 and size: {REMEDY}")
    if len(body) != declared["size"]:
        raise IntegrityError(f"{where}: {name} has {len(body)} bytes, the manifest declares {declared['size']}: {REMEDY}")
    actual = sha256_hex(body)
    if actual != declared["sha256"]:
        raise IntegrityError(f"{where}: {name} has SHA-256 {actual}, the manifest declares {declared['sha256']}: {REMEDY}")
    return body


def _contract_to_json(contract: Contract) -> dict[str, Any]:
    return {
        "symbols": list(contract.symbols),
        "timeframe": str(contract.timeframe),
        # Pairs, not an object: the order of a feature's periods is part of its identity.
        "features": [{"name": spec.name, "params": [list(pair) for pair in spec.params]} for spec in contract.features],
        "lookback": int(contract.lookback),
        "warmup_bars": int(contract.warmup_bars),
        "interval": int(contract.interval),
    }


def _contract_from_json(document: Mapping[str, Any]) -> Contract:
    values = dict(document)
    return Contract(
        symbols=tuple(values.pop("symbols")),
        timeframe=Timeframe.parse(values.pop("timeframe")),
        features=tuple(
            FeatureSpec(name=spec["name"], params=tuple((key, value) for key, value in spec["params"]))
            for spec in values.pop("features")
        ),
        **values,
    )


def _numbers(document: dict[str, Any], whole: Collection[str] = ()) -> dict[str, Any]:
    """One spelling of a number: a fraction given as 1 and as 1.0 is the same bundle."""

    def spelled(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: spelled(key, inner) for key, inner in value.items()}
        if value is None or isinstance(value, str):
            return value
        return int(value) if name in whole else float(value)

    return {name: spelled(name, value) for name, value in document.items()}


def _check_values(bundle: Bundle) -> None:
    contract, sizing, costs, barriers = bundle.contract, bundle.sizing, bundle.costs, bundle.barriers
    fractions = {
        "sizing.max_weight": sizing.max_weight,
        "sizing.dead_zone": sizing.dead_zone,
        "sizing.min_change": sizing.min_change,
        "sizing.cash_buffer": sizing.cash_buffer,
        "costs.fee_bps": costs.fee_bps / 1e4,
        "costs.slippage_bps": costs.slippage_bps / 1e4,
        "barriers.stop": barriers.stop or 0.0,
        "barriers.trail": barriers.trail or 0.0,
    }
    wrong = [f"{name} {value:g}" for name, value in fractions.items() if not 0 <= value <= 1]
    if bundle.kind not in KINDS:
        wrong.append(f"kind {bundle.kind!r}")
    if not 0 < bundle.capital_usd < float("inf"):
        wrong.append(f"capital_usd {bundle.capital_usd!r}")
    if not contract.symbols or len(set(contract.symbols)) != len(contract.symbols):
        wrong.append(f"contract.symbols {list(contract.symbols)}")
    if contract.lookback < 1 or contract.warmup_bars < 0 or contract.interval < 1:
        wrong.append(f"contract.lookback {contract.lookback}, warmup_bars {contract.warmup_bars}, interval {contract.interval}")
    wrong += [f"file name {name!r}" for name in bundle.files if name in (MANIFEST, CARD) or not _NAME.fullmatch(name)]
    wrong += [f"card field {name} (a timestamp)" for name in sorted(_keys_of(bundle.card) & TIMESTAMPS)]
    if wrong:
        raise InvalidInput(f"bundle: {'; '.join(wrong)}: correct what it is made from")


def _keys_of(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return set(value).union(*(_keys_of(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(_keys_of(inner) for inner in value))
    return set()
