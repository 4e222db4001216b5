from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load

from cappuccino.core.errors import InvalidInput, InvariantViolation
from cappuccino.training import export as export_module
from cappuccino.training.learning import TrainedPolicy, train_policy

from .builders import contract, random_bars, returns_features, tiny_config, training_arguments


def trained(network: str = "shared", *, lookback: int = 1) -> TrainedPolicy:
    return train_policy(**training_arguments(config=tiny_config(network=network), lookback=lookback))


@pytest.mark.parametrize(("network", "lookback"), [("shared", 1), ("shared", 4), ("joint", 3)])
def test_onnx_and_torch_decide_alike_on_raw_values(network: str, lookback: int) -> None:
    policy = trained(network, lookback=lookback)
    files = policy.export(contract(lookback=lookback))
    assert files.parity["samples"] >= 600
    assert files.parity["max_abs_error"] < 1e-5
    assert files.parity["quantised_mismatches"] <= 2

    features = returns_features(random_bars(seed=5))
    window = features[50 - lookback : 50].transpose(1, 0, 2)[None].astype(np.float32)
    account = np.array([[[0.2, 0.01, 7, 255], [0, 0, 0, 3], [0.1, -0.05, 300, 255]]], dtype=np.float32)
    feed = {"features": window, "account": account, "cash_weight": np.array([[0.7]], dtype=np.float32)}
    session = onnxruntime.InferenceSession(files.onnx, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [
        ("features", ["batch", 3, lookback, 3]),
        ("account", ["batch", 3, 4]),
        ("cash_weight", ["batch", 1]),
    ]
    (action,) = session.run(["action"], feed)
    with torch.no_grad():
        expected = policy.policy(*(torch.from_numpy(value) for value in feed.values())).numpy()
    np.testing.assert_allclose(action, expected, atol=1e-5)
    assert action.shape == (1, 3)


def test_the_exported_policy_sees_what_the_environment_showed_in_training() -> None:
    """The normaliser in the graph on raw values equals the scaled table and account of training."""
    from cappuccino.training.observation import scale_account

    from .builders import advance, environment

    policy = trained()
    arguments = training_arguments()
    env = environment(arguments["bars"], features=arguments["features"], rows=arguments["rows"], num_envs=6, seed=3)
    for _ in range(30):
        seen = env.observe()
        with torch.no_grad():
            net = policy.policy.net
            account, cash_weight = scale_account(seen.account_BNA.float()), seen.cash_weight_B.float().unsqueeze(-1)
            x = net.encode(env.market.windows(seen.row_B), account, cash_weight)
            raw = torch.from_numpy(arguments["features"][seen.t_B.numpy()][:, :, None].astype(np.float32))
            served = policy.policy(raw, seen.account_BNA.float(), seen.cash_weight_B.float().unsqueeze(-1))
        torch.testing.assert_close(net.mean(x).clamp(-1, 1), served, atol=1e-6, rtol=0)
        advance(env, torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))


def test_extreme_features_are_clipped_inside_the_graph() -> None:
    files = trained().export(contract())
    session = onnxruntime.InferenceSession(files.onnx, providers=["CPUExecutionProvider"])
    account, cash = np.zeros((1, 3, 4), dtype=np.float32), np.ones((1, 1), dtype=np.float32)
    outputs = [
        session.run(
            None, {"features": np.full((1, 3, 1, 3), value, dtype=np.float32), "account": account, "cash_weight": cash}
        )[0]
        for value in (1e3, 1e6)
    ]
    assert np.array_equal(*outputs)
    assert np.abs(outputs[0]).max() <= 1


@pytest.mark.slow
def test_the_same_weights_give_the_same_bytes_in_another_process() -> None:
    here = trained().export(contract())
    script = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.unit.training.test_export import trained; from tests.unit.training.builders import contract\n"
        "files = trained().export(contract()); print(hashlib.sha256(files.onnx + files.weights).hexdigest())"
    )
    root = Path(__file__).parents[3]
    there = subprocess.run(
        [sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True, cwd=root, timeout=120
    )
    assert there.stdout.split()[-1] == hashlib.sha256(here.onnx + here.weights).hexdigest()
    for payload in (here.onnx, here.weights):
        assert str(root).encode() not in payload
        assert b".py" not in payload


def test_the_weights_file_is_the_network_and_its_normaliser() -> None:
    policy = trained()
    stored = load(policy.export(contract()).weights)
    for name, value in policy.policy.state_dict().items():
        assert torch.equal(stored[name], value)


def test_a_contract_of_another_shape_is_refused() -> None:
    policy = trained()
    for other in (contract(lookback=2), contract(features=2), contract(symbols=("BTC/USD",))):
        with pytest.raises(InvalidInput, match="contract"):
            policy.export(other)


def test_an_export_that_disagrees_with_torch_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, other = trained(), trained("shared")
    with torch.no_grad():
        other.policy.net.actor[-1].bias += 0.3
    wrong = export_module._to_onnx(other.policy, (3, 1, 3))
    monkeypatch.setattr(export_module, "_to_onnx", lambda *_: wrong)
    with pytest.raises(InvariantViolation, match="differ"):
        policy.export(contract())
