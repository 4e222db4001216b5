"""What a Trader is told about a venue that cannot be reached as its spec says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.api.trader import TraderSpec
from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints import venues
from cappuccino.trading.credentials import Credentials

ON_COINBASE = TraderSpec.model_validate(
    {
        "venue": {"kind": "coinbase", "accountSecretRef": {"name": "desk-live"}},
        "mode": "live",
        "account": "desk",
        "bundleDigest": "0" * 64,
    }
)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As in a process that has not imported the SDK yet."""
    for name in [n for n in sys.modules if n.split(".")[0] == "coinbase" or ".coinbase" in n]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("cappuccino.entrypoints.coinbase", raising=False)
    return monkeypatch


def reach() -> None:
    venues._coinbase(ON_COINBASE, Credentials(key_id="k", secret_key="s"), None, symbols=("BTC/USD",), inbox=Inbox())


def test_without_the_coinbase_sdk_the_remedy_is_said(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "coinbase", None)
    with pytest.raises(InvalidInput, match=r"needs the extra cappuccino\[coinbase\].*uv sync --extra coinbase"):
        reach()


def test_another_module_that_is_missing_is_not_called_the_sdk(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "cappuccino.adapters.coinbase.wire", None)
    with pytest.raises(ModuleNotFoundError, match=r"adapters\.coinbase\.wire"):
        reach()


def test_only_what_trades_on_coinbase_brings_its_sdk() -> None:
    program = "import sys, cappuccino.entrypoints.trade; print('coinbase' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"
