"""Policy bundles: what the ONNX graph and the weights must be, given the declared architecture."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save as save_tensors

from cappuccino.bundle import Bundle, strategy_of, verify
from cappuccino.bundle.format import pack, unpack
from cappuccino.bundle.network import parameter_counts, size_bounds
from cappuccino.core.errors import IntegrityError
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import Costs
from cappuccino.market.features import spec_of
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract, View

N, L, F, HIDDEN = 2, 3, 2, 16
INPUTS = N * (L * F + 4) + 1
CONTRACT = Contract(
    symbols=("A/USD", "B/USD"),
    timeframe=Timeframe.parse("1h"),
    features=(spec_of("return"), spec_of("rsi")),
    lookback=L,
    warmup_bars=200,
)
RNG = np.random.default_rng(0)
TENSORS = {
    "mean": np.zeros(F, np.float32),
    "std": np.ones(F, np.float32),
    "w0": RNG.standard_normal((INPUTS, HIDDEN)).astype(np.float32),
    "b0": np.zeros(HIDDEN, np.float32),
    "w1": RNG.standard_normal((HIDDEN, N)).astype(np.float32) / 10,
    "b1": np.zeros(N, np.float32),
}


def graph(
    features: tuple[int, ...] = (N, L, F),
    account: tuple[int, ...] = (N, 4),
    cash: str = "cash_weight",
    output: str = "action",
    opset: int = 18,
    domain: str = "",
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """A joint network with its normaliser in the graph."""
    shapes = {"features": features, "account": account, cash: (1,)}
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["f"]),
        helper.make_node("Flatten", ["account"], ["a"]),
        helper.make_node("Concat", ["f", "a", cash], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "w1", "b1"], [output]),
    ]
    inputs = math.prod(features) + math.prod(account) + 1
    tensors = TENSORS | {
        "mean": np.zeros(features[-1], np.float32),
        "std": np.ones(features[-1], np.float32),
        "w0": np.resize(TENSORS["w0"], (inputs, HIDDEN)),
    }
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "policy",
            [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, shape in shapes.items()],
            [helper.make_tensor_value_info(output, kind, ["batch", N])],
            [numpy_helper.from_array(value, name) for name, value in tensors.items()],
        ),
        opset_imports=opsets,
        ir_version=9,
    )
    return bytes(model.SerializeToString())


def policy(**changes: Any) -> Bundle:
    values: dict[str, Any] = {
        "kind": "policy",
        "contract": CONTRACT,
        "parameters": {"network": "joint", "hidden": HIDDEN, "layers": 1},
        "sizing": Sizing(),
        "barriers": Barriers(),
        "costs": Costs(),
        "capital_usd": 10_000.0,
        "files": {"policy.onnx": graph(), "weights.safetensors": save_tensors(TENSORS)},
        "card": {"parity": {"max_abs_error": 1e-6, "samples": 512}},
    }
    return Bundle(**(values | changes))


def with_graph(**changes: Any) -> Bundle:
    return policy(files=dict(policy().files) | {"policy.onnx": graph(**changes)})


def with_weights(tensors: dict[str, Any]) -> Bundle:
    return policy(files=dict(policy().files) | {"weights.safetensors": save_tensors(tensors)})


def test_a_policy_bundle_verifies_and_decides() -> None:
    bundle = policy()
    verify(bundle)
    files = pack(bundle)
    assert unpack(files, files.__getitem__, digest=bundle.digest, where="here") == bundle
    view = View(
        at=datetime(2024, 1, 1, tzinfo=UTC),
        features=np.ones((N, L, F)),
        close=np.ones(N),
        weights=np.zeros(N),
        cash_weight=1.0,
        equity_usd=1.0,
        entry_return=np.zeros(N),
        bars_held=np.zeros(N, dtype=np.int64),
        bars_since_stop=np.full(N, 255),
        tradable=np.ones(N, dtype=bool),
    )
    x = np.concatenate([np.ones(N * L * F), np.tile([0, 0, 0, 255], N), [1]]).astype(np.float32)
    expected = np.tanh(x @ TENSORS["w0"]) @ TENSORS["w1"]
    assert strategy_of(bundle).decide(view, {}).trace["action"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_no_byte_of_a_policy_can_change_unnoticed() -> None:
    bundle = policy()
    files = pack(bundle)
    for name, body in files.items():
        for at in range(0, len(body), 97):
            spoiled = files | {name: body[:at] + bytes([body[at] ^ 0x80]) + body[at + 1 :]}
            with pytest.raises(IntegrityError, match=name):
                unpack(spoiled, spoiled.__getitem__, digest=bundle.digest, where="here")


@pytest.mark.parametrize(
    ("bundle", "named"),
    [
        (lambda: with_graph(features=(N, L, F + 1)), "features of policy.onnx"),
        (lambda: with_graph(features=(F, L, N + 3)), "features of policy.onnx"),
        (lambda: with_graph(account=(N, 5)), "account of policy.onnx"),
        (lambda: with_graph(cash="cash"), "it needs account, action, cash_weight, features"),
        (lambda: with_graph(output="actions"), "it needs account, action"),
        (lambda: with_graph(opset=11), "11"),
        (lambda: with_graph(domain="com.evil"), "com.evil"),
        (
            lambda: policy(files=dict(policy().files) | {"policy.onnx": b"\x00" * 3000}),
            "policy.onnx is no ONNX file|operator sets",
        ),
        (lambda: policy(files=dict(policy().files) | {"policy.onnx": graph()[:-400] + b"\xff" * 400}), "policy"),
        (lambda: policy(files={"policy.onnx": graph()}), "it has policy.onnx and weights.safetensors"),
        (lambda: policy(files=dict(policy().files) | {"actor.pkl": b"x"}), "actor.pkl"),
        (lambda: policy(files=dict(policy().files) | {"weights.safetensors": b"\x01" * 3000}), "no safetensors file"),
        (lambda: with_weights({name: value.astype(np.float64) for name, value in TENSORS.items()}), "F64, not as F32"),
        (lambda: with_weights({"w0": TENSORS["w0"]}), "weights.safetensors has .* bytes"),
        (lambda: with_weights(TENSORS | {"more": np.zeros(400, np.float32)}), "holds .* values"),
        (lambda: policy(card={}), "parity None"),
        (lambda: policy(card={"parity": {"max_abs_error": "tiny"}}), "parity"),
        (lambda: policy(parameters={"network": "joint", "hidden": HIDDEN}), "layers None"),
        (lambda: policy(parameters={"network": "lstm", "hidden": HIDDEN, "layers": 1}), "'lstm'"),
        (lambda: policy(parameters={"network": "joint", "hidden": 4096, "layers": 2}), "policy.onnx has .* bytes"),
        (lambda: policy(contract=replace(CONTRACT, lookback=L + 1)), "holds|bytes|features of policy.onnx"),
    ],
)
def test_files_that_do_not_fit_the_contract_are_refused_by_name(bundle: Any, named: str) -> None:
    with pytest.raises(IntegrityError, match=named):
        verify(bundle())


def test_sizes_follow_from_the_architecture_and_have_no_fixed_limit() -> None:
    small = size_bounds({"network": "shared", "hidden": 32, "layers": 2}, CONTRACT)
    large = size_bounds({"network": "joint", "hidden": 4096, "layers": 2}, CONTRACT)
    assert small["policy.onnx"][1] < 50_000
    assert large["policy.onnx"][0] > 60_000_000
    assert parameter_counts({"network": "joint", "hidden": HIDDEN, "layers": 1}, CONTRACT)[0] == sum(
        t.size for t in TENSORS.values()
    )


def test_the_opset_is_read_as_onnx_reads_it() -> None:
    from cappuccino.bundle.network import _opsets

    model = graph(domain="com.evil")
    assert dict(_opsets(model)) == {entry.domain: entry.version for entry in onnx.load_from_string(model).opset_import}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["shared", "joint"])
@pytest.mark.parametrize(("hidden", "layers"), [(4, 1), (32, 2), (256, 3)])
def test_what_training_exports_makes_a_bundle(network: Any, hidden: int, layers: int) -> None:
    torch = pytest.importorskip("torch")
    from cappuccino.training.export import export_policy
    from cappuccino.training.networks import ActorCritic, Policy

    torch.set_num_threads(1)
    net = ActorCritic(
        network=network,
        assets=N,
        lookback=L,
        features=F,
        hidden=hidden,
        layers=layers,
        log_std=-0.5,
        generator=torch.Generator().manual_seed(1),
    )
    files = export_policy(
        Policy(net, mean_F=torch.zeros(F), std_F=torch.ones(F)),
        contract=CONTRACT,
        real_features_BNLF=np.zeros((4, N, L, F), np.float32),
    )
    verify(
        policy(
            parameters={"network": network, "hidden": hidden, "layers": layers},
            files={"policy.onnx": files.onnx, "weights.safetensors": files.weights},
            card={"parity": files.parity},
        )
    )
