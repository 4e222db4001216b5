from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cappuccino.core.errors import IntegrityError
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.spec import FeatureSpec
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract, View
from cappuccino.strategies.policy import Policy

SYMBOLS = ("A/USD", "B/USD")
CONTRACT = Contract(
    symbols=SYMBOLS, timeframe=Timeframe.parse("1h"), features=(FeatureSpec(name="f"),), lookback=2, warmup_bars=2
)


def graph(pick: str) -> bytes:
    """An ONNX model whose action [batch, 2] is taken from one of its inputs, as `pick` says."""
    ends = {"features": ["batch", 2, 2, 1], "account": ["batch", 2, 4], "cash_weight": ["batch", 1]}
    floats = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends.items()}
    column = {"newest": ("features", 1), "oldest": ("features", 0), "since_stop": ("account", 3), "weight": ("account", 0)}
    source, index = column[pick]
    nodes = [
        helper.make_node("Gather", [source, "index"], ["picked"], axis=2),
        helper.make_node("Reshape", ["picked", "shape"], ["action"]),
    ]
    return onnx.ModelProto.SerializeToString(
        helper.make_model(
            helper.make_graph(
                nodes,
                "test",
                list(floats.values()),
                [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", 2])],
                [
                    helper.make_tensor("index", TensorProto.INT64, [], [index]),
                    helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 2]),
                ],
            ),
            opset_imports=[helper.make_opsetid("", 18)],
            ir_version=9,
        )
    )


def view(newest: list[float], **changes: Any) -> View:
    values: dict[str, Any] = {
        "at": datetime(2024, 1, 1, tzinfo=UTC),
        "features": np.stack([np.array([9.0, 9.0]), np.array(newest)], axis=1)[:, :, None],
        "close": np.ones(2),
        "weights": np.zeros(2),
        "cash_weight": 1.0,
        "equity_usd": 1.0,
        "entry_return": np.zeros(2),
        "bars_held": np.zeros(2, dtype=np.int64),
        "bars_since_stop": np.array([255, 3]),
        "tradable": np.ones(2, dtype=bool),
    }
    return View(**(values | changes))


def policy(pick: str = "newest", model: bytes | None = None) -> Policy:
    return Policy(contract=CONTRACT, sizing=Sizing(), model=model or graph(pick))


def test_the_action_is_quantised_and_decoded_and_the_raw_one_is_traced() -> None:
    decision = policy().decide(view([0.5001, -0.4]), {"kept": 1})
    assert {target.symbol: target.weight for target in decision.intents} == {"A/USD": pytest.approx(0.15), "B/USD": 0.0}
    assert decision.trace["action"] == pytest.approx([0.5001, -0.4])
    assert decision.memory == {"kept": 1}


def test_an_action_in_the_dead_zone_holds() -> None:
    assert policy().decide(view([0.097, -0.097]), {}).intents == ()


def test_an_action_beyond_one_asks_for_no_more_than_the_largest_weight() -> None:
    assert [target.weight for target in policy().decide(view([7.0, 0.0]), {}).intents] == [pytest.approx(0.30)]


def test_an_action_that_is_not_a_number_holds_that_symbol_alone() -> None:
    decision = policy().decide(view([np.nan, 1.0]), {})
    assert [target.symbol for target in decision.intents] == ["B/USD"]
    assert decision.trace["action"] == [None, 1.0]


def test_the_account_is_fed_in_the_declared_columns() -> None:
    assert policy("since_stop").action(view([0.0, 0.0])).tolist() == [255.0, 3.0]
    assert policy("weight").action(view([0.0, 0.0], weights=np.array([0.25, 0.5]))).tolist() == [0.25, 0.5]
    assert policy("oldest").action(view([0.0, 0.0])).tolist() == [9.0, 9.0]


def test_the_same_view_gives_the_same_decision() -> None:
    rule = policy()
    assert rule.decide(view([0.3, -0.3]), {}) == rule.decide(view([0.3, -0.3]), {}) == policy().decide(view([0.3, -0.3]), {})


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(IntegrityError, match="onnxruntime cannot run"):
        policy(model=b"no graph at all").decide(view([0.0, 0.0]), {})


def test_no_runtime_is_loaded_before_the_first_decision() -> None:
    code = (
        "import sys, cappuccino.strategies.policy as p\n"
        "p.Policy(contract=None, sizing=None, model=b'')\n"
        "sys.exit('onnxruntime' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_graph_that_does_not_fit_its_contract_is_the_bundles_fault() -> None:
    three = replace(CONTRACT, symbols=(*SYMBOLS, "C/USD"))
    with pytest.raises(IntegrityError, match=r"shape \(1, 2\), its contract says \(1, 3\)"):
        Policy(contract=three, sizing=Sizing(), model=graph("newest")).decide(view([0.0, 0.0]), {})
