"""Bad input that needs no runner: one clear line (what, where, the value, the remedy), a non-zero exit, and no loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.bundle import Bundle, save
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.cli import main
from cappuccino.exchange.venue import Costs
from cappuccino.market.features import spec_of, warmup_bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract

INVALID = sorted((Path(__file__).parents[1] / "contract" / "invalid").glob("*.yaml"))
START = 1_704_067_200  # 2024-01-01
Captured = pytest.CaptureFixture[str]


def refusal(capsys: Captured, *argv: str, code: int = 2) -> str:
    """The one line on stderr."""
    assert main(argv) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def bars(count: int = 48, **changes: object) -> pl.DataFrame:
    """Hourly bars of one symbol that are in order; `changes` are column values at row 10."""
    rows = [
        {"symbol": "BTC/USD", "ts": START + 3600 * i, "open": 100.0, "high": 101.0, "low": 99.0, "close": 100.0, "volume": 5.0}
        for i in range(count)
    ]
    rows[10] |= changes
    return pl.DataFrame(rows)


def trend_bundle(folder: Path, **changes: object) -> Path:
    features = (spec_of("return", {"bars": 1}),)
    values = {
        "kind": "trend",
        "contract": Contract(
            symbols=("BTC/USD",),
            timeframe=Timeframe.parse("1h"),
            features=features,
            lookback=1,
            warmup_bars=warmup_bars(features),
        ),
        "sizing": Sizing(),
        "barriers": Barriers(),
        "costs": Costs(fee_bps=25, slippage_bps=15),
        "capital_usd": 10_000.0,
        "parameters": {"feature": "return", "feature_bars": "1", "enter": "0.001", "exit": "0"},
    }
    digest = save(open_blobs(folder.as_uri()), Bundle(**(values | changes)))
    return folder / "bundles" / digest


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_a_bad_manifest(path: Path, capsys: Captured) -> None:
    line = refusal(capsys, "apply", "--dry-run", "-f", str(path))
    says = next(text.removeprefix("# says: ") for text in path.read_text().splitlines() if text.startswith("# says: "))
    assert path.name in line
    assert says in line


@pytest.mark.parametrize(
    ("change", "problem", "value"),
    [
        ({"close": float("nan")}, "not_finite", "close nan"),
        ({"open": -1.0}, "not_positive", "open -1.0"),
        ({"low": 0.0}, "not_positive", "low 0.0"),
        ({"high": 98.0}, "ohlc", "high 98.0"),
        ({"volume": -5.0}, "negative_volume", "volume -5.0"),
        ({"ts": START + 3600 * 10 + 7}, "off_grid", "ts"),
        ({"ts": START + 3600 * 9, "close": 100.5}, "conflict", "close 100.5"),
        ({"ts": START + 3600 * 9}, "duplicate", "ts"),
        ({"ts": START + 3600 * 5}, "unordered", "ts"),
    ],
    ids=[
        "nan",
        "negative price",
        "zero price",
        "high below low",
        "negative volume",
        "off the grid",
        "conflict",
        "duplicate",
        "order",
    ],
)
def test_a_bad_bar(change: dict[str, object], problem: str, value: str, capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "bars.parquet"
    bars(**change).write_parquet(file)
    assert main(["data", "check", str(file)]) == 2
    captured = capsys.readouterr()
    assert any(
        line.startswith("BTC/USD 2024-01-01T") and f": {problem} (" in line and value in line
        for line in captured.out.splitlines()
    )
    assert captured.err.startswith(f"error: {file}: ")
    assert problem in captured.err
    assert "correct them" in captured.err


def test_good_bars_are_good(capsys: Captured, tmp_path: Path) -> None:
    for suffix, write in (
        ("parquet", pl.DataFrame.write_parquet),
        ("csv", pl.DataFrame.write_csv),
        ("feather", pl.DataFrame.write_ipc),
    ):
        file = tmp_path / f"bars.{suffix}"
        write(bars(), file)
        assert main(["data", "check", str(file)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda file: file.write_bytes(b"PAR1 not really"), "not a readable parquet file"),
        (lambda file: bars().drop("close").write_parquet(file), "has no column close"),
        (lambda file: bars().clear().write_parquet(file), "has no rows"),
        (lambda file: bars().with_columns(ts=pl.lit("1 May 2024")).write_parquet(file), "1 May 2024"),
        (lambda file: bars().with_columns(open=pl.lit("cheap")).write_parquet(file), "cheap"),
        (lambda file: None, "there is no such file"),
    ],
    ids=["corrupt", "a column short", "empty", "no stamp", "no number", "absent"],
)
def test_a_bad_file(write: Callable[[Path], object], says: str, capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "bars.parquet"
    write(file)
    line = refusal(capsys, "data", "check", str(file))
    assert str(file) in line
    assert says in line


def test_a_truncated_parquet_file(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "bars.parquet"
    bars().write_parquet(file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "not a readable parquet file" in refusal(capsys, "data", "check", str(file))


def test_a_timeframe_that_the_data_cannot_give(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "bars.parquet"
    bars().write_parquet(file)
    line = refusal(capsys, "data", "check", str(file), "--timeframe", "15m")
    assert "15m" in line
    assert "1h" in line


def test_a_symbol_that_the_data_does_not_have(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "bars.parquet"
    bars().with_columns(symbol=pl.lit("ETH/USD")).write_parquet(file)
    line = refusal(capsys, "backtest", str(trend_bundle(tmp_path)), str(file))
    assert "BTC/USD" in line
    assert "ETH/USD" in line


def test_fewer_bars_than_the_warm_up(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "bars.parquet"
    bars().write_parquet(file)
    features = (spec_of("sma", {"period": 200}),)
    contract = Contract(
        symbols=("BTC/USD",), timeframe=Timeframe.parse("1h"), features=features, lookback=1, warmup_bars=warmup_bars(features)
    )
    parameters = {"feature": "sma", "feature_period": "200", "enter": "0.1", "exit": "0"}
    folder = trend_bundle(tmp_path, contract=contract, parameters=parameters)
    line = refusal(capsys, "backtest", str(folder), str(file))
    assert "48 bars" in line
    assert "200" in line


def test_a_capital_that_is_too_small(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "bars.parquet"
    bars().write_parquet(file)
    line = refusal(capsys, "backtest", str(trend_bundle(tmp_path)), str(file), "--capital-usd", "1")
    assert "capital" in line
    assert "1" in line


def test_a_bundle_that_was_changed_by_one_byte(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "bars.parquet"
    bars().write_parquet(file)
    folder = trend_bundle(tmp_path)
    manifest = folder / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes().replace(b"0.001", b"0.002"))
    line = refusal(capsys, "backtest", str(folder), str(file), code=3)
    assert "manifest.json" in line
    assert folder.name in line


def test_a_database_that_is_down(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPUCCINO_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert "database is away" in refusal(capsys, "get", "all", code=75)
