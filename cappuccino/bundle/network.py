"""What the files of a `policy` bundle must be, given the architecture that its manifest declares.

Parameters: `network` (shared: one net for every asset; joint: one for all), `hidden` (width), `layers`. With N symbols,
lookback L and F features an asset contributes D = L F + 4 values; the actor is an MLP

    shared:  D + 1   -> hidden x layers -> 1
    joint:   N D + 1 -> hidden x layers -> N

and beside it stand the normaliser (a mean and a deviation per feature, or per asset and feature) and, in the file of
weights only, the critic (the same with one output) and a deviation per output. Sizes follow from these counts, 4 bytes
each; there are no fixed limits. The graph must have exactly the inputs and the output that `strategies.policy` feeds,
in standard operators only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import safetensors

from cappuccino.bundle.format import REMEDY
from cappuccino.core.errors import IntegrityError
from cappuccino.strategies.interface import Contract
from cappuccino.strategies.policy import ACCOUNT_COLUMNS, open_session

GRAPH, WEIGHTS = "policy.onnx", "weights.safetensors"
NETWORKS = ("shared", "joint")
OPSETS = range(13, 24)
BYTES = 4
_HEADER = 16_384  # names of nodes and tensors, besides what each layer adds
_HEADER_PER_LAYER = 1_024

_Fields = Iterator[tuple[int, int | bytes]]


def parameter_counts(parameters: Mapping[str, Any], contract: Contract) -> tuple[int, int]:
    """(the least that actor and normaliser hold, the most that a file of weights may hold), in numbers.

    Raises:
        IntegrityError: the architecture is not declared as this version knows it.
    """
    network, hidden, layers = (parameters.get(name) for name in ("network", "hidden", "layers"))
    whole = all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in (hidden, layers))
    if network not in NETWORKS or not whole:
        raise IntegrityError(
            f"policy: network {network!r}, hidden {hidden!r}, layers {layers!r}: the manifest must declare "
            f"{' or '.join(NETWORKS)} and two whole numbers above 0"
        )
    N = len(contract.symbols)
    asset = contract.lookback * len(contract.features) + len(ACCOUNT_COLUMNS)
    inputs, outputs = (asset + 1, 1) if network == "shared" else (N * asset + 1, N)
    normaliser = 2 * len(contract.features)
    actor = _mlp(inputs, int(hidden), int(layers), outputs)  # type: ignore[arg-type]
    critic = _mlp(inputs, int(hidden), int(layers), 1)  # type: ignore[arg-type]
    return actor + normaliser, actor + critic + outputs + N * normaliser


def size_bounds(parameters: Mapping[str, Any], contract: Contract) -> dict[str, tuple[int, int]]:
    """(smallest, largest) size in bytes of each file of a policy bundle."""
    served, most = parameter_counts(parameters, contract)
    header = _HEADER + _HEADER_PER_LAYER * int(parameters["layers"])
    per_asset = 2 * len(contract.symbols) * len(contract.features)
    return {GRAPH: (BYTES * served, BYTES * (served + per_asset) + header), WEIGHTS: (BYTES * served, BYTES * most + header)}


def verify_policy(
    parameters: Mapping[str, Any], contract: Contract, files: Mapping[str, bytes], card: Mapping[str, Any]
) -> None:
    """
    Raises:
        IntegrityError: a file is absent, too small or too large for the architecture, not a graph or not weights,
            or the graph's inputs, output or operators are not the contract's; or the card has no parity.
    """
    if set(files) != {GRAPH, WEIGHTS}:
        raise IntegrityError(f"policy: files {', '.join(sorted(files)) or 'none'}: it has {GRAPH} and {WEIGHTS}: {REMEDY}")
    for name, (low, high) in size_bounds(parameters, contract).items():
        if not low <= len(files[name]) <= high:
            raise IntegrityError(
                f"policy: {name} has {len(files[name])} bytes, the declared architecture takes {low} to {high}: {REMEDY}"
            )
    error = card.get("parity", {}).get("max_abs_error") if isinstance(card.get("parity", {}), Mapping) else None
    if not isinstance(error, int | float) or not math.isfinite(error):
        raise IntegrityError(
            f"policy: card.json has parity {card.get('parity')!r}: it must tell max_abs_error of ONNX and torch"
        )
    _verify_weights(files[WEIGHTS], *parameter_counts(parameters, contract))
    _verify_graph(files[GRAPH], contract)


def _verify_weights(body: bytes, least: int, most: int) -> None:
    try:
        tensors = dict(safetensors.deserialize(body))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise IntegrityError(f"policy: {WEIGHTS} is no safetensors file ({error}): {REMEDY}") from error
    odd = sorted(name for name, tensor in tensors.items() if tensor["dtype"] != "F32")
    if odd:
        raise IntegrityError(f"policy: {WEIGHTS} holds {odd[0]} as {tensors[odd[0]]['dtype']}, not as F32: {REMEDY}")
    count = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    if not least <= count <= most:
        raise IntegrityError(f"policy: {WEIGHTS} holds {count} values, the architecture has {least} to {most}: {REMEDY}")


def _verify_graph(body: bytes, contract: Contract) -> None:
    try:
        opsets = dict(_opsets(body))
    except (IndexError, ValueError) as error:
        raise IntegrityError(f"policy: {GRAPH} is no ONNX file ({error}): {REMEDY}") from error
    if set(opsets) != {""} or opsets[""] not in OPSETS:
        raise IntegrityError(
            f"policy: {GRAPH} uses operator sets {opsets}: only the standard one, {OPSETS[0]} to {OPSETS[-1]}, is served"
        )
    session = open_session(body)
    N, L, F = len(contract.symbols), contract.lookback, len(contract.features)
    expected = {"features": [N, L, F], "account": [N, len(ACCOUNT_COLUMNS)], "cash_weight": [1], "action": [N]}
    found = {end.name: (end.type, end.shape) for end in (*session.get_inputs(), *session.get_outputs())}
    if set(found) != set(expected) or [end.name for end in session.get_outputs()] != ["action"]:
        raise IntegrityError(
            f"policy: {GRAPH} has {', '.join(sorted(found))}, it needs {', '.join(sorted(expected))}: {REMEDY}"
        )
    for name, shape in expected.items():
        kind, actual = found[name]
        if kind != "tensor(float)" or list(actual[1:]) != shape:
            raise IntegrityError(
                f"policy: {name} of {GRAPH} is {kind} {actual}, the contract asks for tensor(float) [batch, "
                f"{', '.join(map(str, shape))}]: {REMEDY}"
            )


def _mlp(inputs: int, hidden: int, layers: int, outputs: int) -> int:
    return (inputs + 1) * hidden + (layers - 1) * (hidden + 1) * hidden + (hidden + 1) * outputs


def _opsets(model: bytes) -> Iterator[tuple[str, int]]:
    """(domain, version) of every operator set: field 8 of ModelProto; the standard domain is "".

    Reading these few bytes saves a trader the `onnx` package.
    """
    for number, value in _fields(model):
        if number == 8 and isinstance(value, bytes):
            entry = dict(_fields(value))
            domain, version = entry.get(1, b""), entry.get(2, 0)
            if not isinstance(domain, bytes) or not isinstance(version, int):
                raise ValueError("operator set is malformed")
            name = domain.decode()
            yield "" if name == "ai.onnx" else name, version


def _fields(message: bytes) -> _Fields:
    """(field number, value) of a protobuf message, one level deep."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"{size} bytes are announced at byte {at}, {len(message) - at} are left")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"number at byte {at} is too long")
