"""A policy as a bundle holds it: an ONNX graph with the normaliser inside, the same weights as safetensors, and how far
ONNX Runtime and torch differ on the same inputs.

Same weights give the same bytes: neither file holds paths, times or names of machines.
The graph: `features` [batch, N, L, F], `account` [batch, N, 4], `cash_weight` [batch, 1], raw float32 -> `action` [batch, N].
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from safetensors.torch import save

from cappuccino.core.errors import InvalidInput, InvariantViolation
from cappuccino.risk.sizing import quantise
from cappuccino.strategies.interface import Contract
from cappuccino.training.networks import Policy
from cappuccino.training.observation import ACCOUNT, COUNTER_CAP

INPUTS = ("features", "account", "cash_weight")
OUTPUT = "action"
OPSET = 18
TOLERANCE = 1e-4  # action units; a float32 network of this depth differs by about 1e-6
RANDOM_SAMPLES = 512

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PolicyFiles:
    """onnx and weights: file contents. parity: max_abs_error (action units), samples (decisions compared), and
    quantised_mismatches (actions that fall on another multiple of 1/128)."""

    onnx: bytes
    weights: bytes
    parity: dict[str, float]


def export_policy(policy: Policy, *, contract: Contract, real_features_BNLF: Float32, seed: int = 0) -> PolicyFiles:
    """
    Args:
        real_features_BNLF: raw windows from the training rows, compared besides random ones.

    Raises:
        InvalidInput: the contract's symbols, features or lookback are not those the policy was made with.
        InvariantViolation: ONNX Runtime disagrees with torch by more than `TOLERANCE`.
    """
    shape = (len(contract.symbols), contract.lookback, len(contract.features))
    if real_features_BNLF.shape[1:] != shape:
        raise InvalidInput(
            f"contract asks for (symbols, lookback, features) {shape}, the policy has {real_features_BNLF.shape[1:]}"
        )
    policy = policy.eval().cpu()
    onnx = _to_onnx(policy, shape)
    weights = save({name: value.detach().clone().contiguous() for name, value in policy.state_dict().items()})
    parity = _parity(policy, onnx, real_features_BNLF, np.random.default_rng(seed))
    if not parity["max_abs_error"] <= TOLERANCE:
        raise InvariantViolation(
            f"ONNX and torch differ by {parity['max_abs_error']:.3g} in action units, {TOLERANCE:g} is allowed"
        )
    return PolicyFiles(onnx=onnx, weights=weights, parity=parity)


def _to_onnx(policy: Policy, shape: tuple[int, int, int]) -> bytes:
    assets = shape[0]
    example = (torch.zeros(2, *shape), torch.zeros(2, assets, len(ACCOUNT)), torch.ones(2, 1))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter takes 0.2 s and writes no source paths; the newer one takes 7 s and does.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            policy,
            example,
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "batch"} for name in (*INPUTS, OUTPUT)},
        )
    return buffer.getvalue()


def _parity(policy: Policy, onnx: bytes, real_BNLF: Float32, rng: np.random.Generator) -> dict[str, float]:
    mean, std = policy.mean.cpu().numpy(), policy.std.cpu().numpy()
    random_BNLF = mean + std * 2.0 * rng.standard_normal((RANDOM_SAMPLES, *real_BNLF.shape[1:]))
    features = np.concatenate((random_BNLF.astype(np.float32), real_BNLF))
    count, assets = features.shape[:2]
    weight = rng.dirichlet(np.ones(assets + 1), count)
    account = np.stack(
        (
            weight[:, 1:],
            rng.normal(0.0, 0.05, (count, assets)),
            rng.integers(0, COUNTER_CAP + 1, (count, assets)),
            rng.integers(0, COUNTER_CAP + 1, (count, assets)),
        ),
        axis=-1,
    ).astype(np.float32)
    cash_weight = weight[:, :1].astype(np.float32)
    with torch.no_grad():
        ours = policy(*(torch.from_numpy(array) for array in (features, account, cash_weight))).numpy()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    (theirs,) = session.run([OUTPUT], dict(zip(INPUTS, (features, account, cash_weight), strict=True)))
    return {
        "max_abs_error": float(np.abs(ours - theirs).max()),
        "samples": count,
        "quantised_mismatches": int((quantise(np, ours) != quantise(np, theirs)).sum()),
    }
