"""Policy: a network trained in torch, served by onnxruntime on one thread.

The graph has its normaliser inside and takes raw values in float32:

    features     [batch, N, L, F]
    account      [batch, N, 4]     weight, entry_return, bars_held, bars_since_stop
    cash_weight  [batch, 1]
    -> action    [batch, N]

The action is quantised and decoded by `risk/sizing`, as it was in training, so that float32 here and
there decide alike. onnxruntime is imported at the first decision: half a second and 50 MB that a
process which only reads bundles does not pay.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import IntegrityError
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.actions import targets_of, traced
from cappuccino.strategies.interface import Contract, Decision, Json, View

_REFUSALS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NotImplemented", "RuntimeException")
ACCOUNT_COLUMNS = ("weight", "entry_return", "bars_held", "bars_since_stop")


class Policy:
    """Keeps no memory. `model` is the ONNX file; the bundle that it came from has checked it."""

    def __init__(self, *, contract: Contract, sizing: Sizing, model: bytes) -> None:
        self.contract = contract
        self.sizing = sizing
        self._model = model

    @cached_property
    def _session(self) -> Any:
        return open_session(self._model)

    def decide(self, view: View, memory: Json) -> Decision:
        """Targets of the network's action; a symbol whose action is not a number is held."""
        action = self.action(view)
        return Decision(
            intents=targets_of(action, self.contract.symbols, self.sizing),
            memory=memory,
            trace={"action": traced(action)},
        )

    def action(self, view: View) -> npt.NDArray[np.float64]:
        """The raw action [N], before clipping and quantisation. Raises IntegrityError: the graph does not fit the contract."""
        account = np.stack([view.weights, view.entry_return, view.bars_held, view.bars_since_stop], axis=-1)
        (action,) = self._session.run(
            ["action"],
            {
                "features": np.ascontiguousarray(view.features[None], dtype=np.float32),
                "account": account[None].astype(np.float32),
                "cash_weight": np.array([[view.cash_weight]], dtype=np.float32),
            },
        )
        if action.shape != (1, len(self.contract.symbols)):
            raise IntegrityError(
                f"policy: the graph gives an action of shape {action.shape}, its contract says"
                f" (1, {len(self.contract.symbols)}): fit the bundle again"
            )
        return np.asarray(action[0], dtype=np.float64)


def open_session(model: bytes) -> Any:
    """An onnxruntime session on one thread, on the CPU.

    Raises:
        IntegrityError: the bytes are no graph that onnxruntime can run.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a bad model is reported by the exception, once
    # onnxruntime's errors have no base class of their own.
    refusals = tuple(getattr(state, name) for name in _REFUSALS)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except refusals as error:
        why = " ".join(str(error).split())[:200]
        raise IntegrityError(
            f"policy: onnxruntime cannot run the graph of {len(model)} bytes ({why}): export it again"
        ) from error
