from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import Bars
from cappuccino.market.catalogue import CATALOGUE
from cappuccino.market.features import (
    DEFAULT_FEATURES,
    FEATURE_SETS,
    FeatureStream,
    compute,
    fit_scaling,
    reference_symbol,
    spec_of,
    warmup_bars,
)
from cappuccino.market.quality import dense
from cappuccino.market.spec import FeatureSpec

EVERY_FEATURE = tuple(spec_of(name) for name in CATALOGUE)
HOUR = Timeframe.parse("1h")


def panel(*, seed=0, bars=400, symbols=("ETH/USD", "BTC/USD", "AAA/USD"), volatility=0.01, missing=0.02) -> Bars:
    """A random walk with some missing (flat) bars."""
    rng = np.random.default_rng(seed)
    shape = (bars, len(symbols))
    gone = rng.random(shape) < missing
    gone[0] = False
    steps = np.where(gone, 0.0, rng.normal(0, volatility, shape))
    close = 10 ** rng.uniform(-2, 4, len(symbols)) * np.exp(np.cumsum(steps, axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    wick = np.where(gone, 0.0, rng.exponential(volatility / 2, shape))
    return Bars(
        symbols=tuple(symbols),
        timeframe=HOUR,
        ts=np.arange(bars, dtype=np.int64) * 3600,
        open=open_,
        high=np.maximum(open_, close) * (1 + wick),
        low=np.minimum(open_, close) * (1 - wick / 2),
        close=close,
        volume=np.where(gone, 0.0, rng.exponential(1e4, shape)),
        missing=gone,
    )


def with_rows(bars: Bars, change) -> Bars:
    """`bars` with each column passed through `change`, which may write to it."""
    columns = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for column in columns.values():
        change(column)
    return Bars(symbols=bars.symbols, timeframe=bars.timeframe, ts=bars.ts, missing=bars.missing, **columns)


def streamed(bars: Bars, specs, *, start=0) -> np.ndarray:
    stream = FeatureStream(bars.symbols, bars.timeframe, specs)
    rows = range(start, len(bars))
    return np.array([stream.update(bars.open[t], bars.high[t], bars.low[t], bars.close[t], bars.volume[t]) for t in rows])


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), volatility=st.sampled_from([0.0005, 0.005, 0.05]), missing=st.sampled_from([0.0, 0.05, 0.5]))
def test_a_stream_gives_the_bits_of_the_batch_from_the_same_first_bar(seed, volatility, missing):
    bars = panel(seed=seed, volatility=volatility, missing=missing)
    assert streamed(bars, EVERY_FEATURE).tobytes() == compute(bars, EVERY_FEATURE).tobytes()


def test_real_bars_stream_bit_identically(real_rows):
    rows = real_rows("1h")
    symbols = ["SOL/USDT", "BTC/USDT", "DOGE/USDT"]
    bars = dense(rows, symbols, HOUR, int(rows["ts"].min()), int(rows["ts"].min()) + 1200 * 3600)
    assert streamed(bars, FEATURE_SETS["full"]).tobytes() == compute(bars, FEATURE_SETS["full"]).tobytes()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), volatility=st.sampled_from([0.001, 0.01]), offset=st.integers(1, 300))
def test_after_its_declared_warm_up_a_feature_has_forgotten_where_it_began(seed, volatility, offset):
    for spec in EVERY_FEATURE:
        need = warmup_bars([spec])
        bars = panel(seed=seed, bars=offset + need + 20, volatility=volatility)
        whole = compute(bars, [spec])[offset + need - 1 :]
        late = compute(bars.rows(offset, len(bars)), [spec])[need - 1 :]
        assert np.all(np.isfinite(whole))
        assert np.max(np.abs(whole - late)) < 1e-6, spec


def test_real_bars_agree_after_the_warm_up_from_any_first_bar(real_rows):
    rows = real_rows("5m")
    five = Timeframe.parse("5m")
    first = int(rows["ts"].min())
    bars = dense(rows, ["BTC/USDT", "DOGE/USDT"], five, first, first + 20_000 * 300)
    specs = FEATURE_SETS["full"] + FEATURE_SETS["default"]
    need = warmup_bars(specs)
    whole = compute(bars, specs)
    for start in (1, 5_000, 12_345):
        late = compute(bars.rows(start, start + need + 500), specs)[need - 1 :]
        assert np.max(np.abs(late - whole[start + need - 1 : start + need + 500])) < 1e-6


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 399), factor=st.floats(0.2, 5))
def test_changing_bars_after_t_leaves_the_features_at_t_alone(seed, cut, factor):
    bars = panel(seed=seed)

    def rescale(column):
        column[cut:] *= factor

    before, after = compute(bars, EVERY_FEATURE), compute(with_rows(bars, rescale), EVERY_FEATURE)
    assert before[:cut].tobytes() == after[:cut].tobytes()


def test_features_are_a_function_of_the_bars_alone_defect_11():
    bars = panel()
    np.random.seed(1)
    first = compute(bars, EVERY_FEATURE)
    np.random.seed(2)
    assert first.tobytes() == compute(bars, EVERY_FEATURE).tobytes()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_feature_has_a_unit(seed):
    """Another quote currency and another unit of volume change nothing."""
    bars = panel(seed=seed)
    scaled = Bars(
        symbols=bars.symbols,
        timeframe=bars.timeframe,
        ts=bars.ts,
        missing=bars.missing,
        volume=bars.volume * 1024,
        **{name: getattr(bars, name) * 64 for name in ("open", "high", "low", "close")},
    )
    np.testing.assert_allclose(compute(bars, EVERY_FEATURE), compute(scaled, EVERY_FEATURE), atol=1e-8, rtol=0)


def test_the_order_of_symbols_changes_no_value():
    bars = panel()
    backwards = tuple(reversed(bars.symbols))
    assert compute(bars, EVERY_FEATURE)[:, ::-1].tobytes() == compute(bars.select(backwards), EVERY_FEATURE).tobytes()


def test_the_reference_is_bitcoin_else_the_first_in_the_alphabet():
    assert reference_symbol(["SOL/USD", "BTC/USD", "AAVE/USD"]) == "BTC/USD"
    assert reference_symbol(["SOL/USD", "WBTC/USD"]) == "SOL/USD"


def test_a_market_at_rest_gives_finite_values():
    bars = with_rows(panel(bars=300), lambda column: column.__setitem__(slice(None), 100.0))
    values = compute(bars, EVERY_FEATURE)[-1]
    assert np.all(np.isfinite(values))
    labels = [spec.name for spec in EVERY_FEATURE]
    for name in ("return", "trend", "cci", "bb_position", "macd_hist", "volume_ratio"):
        assert np.all(np.abs(values[:, labels.index(name)]) < 1e-6), name


def test_known_values_of_a_rising_market():
    bars = panel(bars=60, symbols=("A/USD",), missing=0.0)
    rising = 100 * 1.01 ** np.arange(60)[:, None]
    bars = with_rows(bars, lambda column: column.__setitem__(slice(None), rising))
    specs = [spec_of("return", {"bars": 5}), spec_of("price_change", {"bars": 2}), spec_of("rsi", {"period": 10})]
    last = compute(bars, specs)[-1, 0]
    np.testing.assert_allclose(last, [5 * np.log(1.01), 1.01**2 - 1, 1.0], atol=1e-12)


def test_formulas_agree_with_their_definitions_on_one_window():
    bars = panel(bars=80, symbols=("BTC/USD", "A/USD"), missing=0.0)
    close, high, low, volume = bars.close[:, 1], bars.high[:, 1], bars.low[:, 1], bars.volume[:, 1]
    logs = np.diff(np.log(bars.close), axis=0)
    typical = ((high + low + close) / 3)[-20:]
    middle, sd = close[-20:].mean(), close[-20:].std()
    expected = {
        "sma": close[-1] / middle - 1,
        "bb_width": 4 * sd / middle,
        "bb_position": (close[-1] - middle) / (2 * sd + close[-1] * 1e-4),
        "cci": (typical[-1] - typical.mean()) / (0.015 * np.mean(np.abs(typical - typical.mean()))) / 100,
        "volatility": logs[-24:, 1].std(),
        "roc": (close[-1] / close[-11] - 1) / (logs[-10:, 1].std() + 1e-4),
        "support": low[-48:].min() / close[-48:].mean() - 1,
        "resistance": high[-48:].max() / close[-48:].mean() - 1,
        "support_distance": close[-1] / low[-48:].min() - 1,
        "resistance_distance": high[-48:].max() / close[-1] - 1,
        "volume_ratio": (volume[-1] - volume[-20:].mean()) / (volume[-1] + volume[-20:].mean()),
        "volume_change": (volume[-1] - volume[-2]) / (volume[-1] + volume[-2]),
        "btc_correlation": np.corrcoef(logs[-72:].T)[0, 1],
    }
    values = compute(bars, [spec_of(name) for name in expected])[-1, 1]
    np.testing.assert_allclose(values, list(expected.values()), atol=1e-9, rtol=0)


def test_exponential_formulas_agree_with_their_recursions():
    bars = panel(bars=1200, symbols=("A/USD",), missing=0.0)
    close = bars.close[:, 0]
    logs = np.diff(np.log(close))

    def ema(x, n, weight=None):
        value = x[0]
        for new in x[1:]:
            value += (new - value) * (weight or 2 / (n + 1))
        return value

    ups = ema(np.maximum(np.diff(close), 0), 14, 1 / 14) / ema(np.abs(np.diff(close)), 14, 1 / 14)
    gap = (ema(close, 6) - ema(close, 18)) / (close[-1] * (logs[-18:].std() + 1e-4))
    expected = {
        "ema": close[-1] / ema(close, 20) - 1,
        "rsi": 2 * ups - 1,
        "ema_gap": gap,
        "trend": ema(logs, 11) / (logs[-48:].std() + 1e-4),
        "macd": (ema(close, 12) - ema(close, 26)) / (close[-1] * (logs[-26:].std() + 1e-4)),
    }
    values = compute(bars, [spec_of(name) for name in expected])[-1, 0]
    np.testing.assert_allclose(values, list(expected.values()), atol=1e-9, rtol=0)


def test_a_value_is_there_exactly_when_there_are_enough_bars():
    bars = panel(bars=60)
    for bars_back in (1, 7, 24):
        column = compute(bars, [spec_of("return", {"bars": bars_back})])[:, 0, 0]
        assert np.all(np.isnan(column[:bars_back]))
        assert np.all(np.isfinite(column[bars_back:]))


def test_a_stream_is_ready_after_its_warm_up():
    bars = panel(bars=30)
    stream = FeatureStream(bars.symbols, HOUR, [spec_of("return", {"bars": 24})])
    ready = []
    for t in range(30):
        stream.update(bars.open[t], bars.high[t], bars.low[t], bars.close[t], bars.volume[t])
        ready.append(stream.ready)
    assert ready.index(True) == 24


def test_the_defaults_are_eight_and_warm_up_within_200_bars():
    assert len(DEFAULT_FEATURES) == 8
    assert warmup_bars(DEFAULT_FEATURES) <= 200


def test_the_full_set_is_the_list_of_29():
    assert len({spec.label for spec in FEATURE_SETS["full"]}) == 29


def test_labels_follow_the_catalogues_order_of_parameters():
    assert spec_of("macd", {"signal": 5, "slow": 20.0}).label == "macd_12_20_5"


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("rsj", {}, "'rsj' is not in the catalogue: use one of atr"),
        ("rsi", {"bars": 3}, "rsi: parameter 'bars' is unknown: it takes period"),
        ("rsi", {"period": 1}, "period is 1: use a whole number from 2"),
        ("rsi", {"period": 2.5}, "period is 2.5: use a whole number"),
        ("rsi", {"period": 1e6}, "to 2000"),
        ("macd", {"fast": 30}, "fast 30 is not below slow 26"),
        ("bb_width", {"deviations": -1}, "deviations is -1: use 0.1 to 10"),
    ],
)
def test_a_wrong_feature_is_refused_with_the_remedy(name, params, says):
    with pytest.raises(InvalidInput, match=says):
        spec_of(name, params)


def test_an_unusable_bar_is_refused_and_moves_no_state():
    bars = panel(bars=80)
    stream = FeatureStream(bars.symbols, HOUR, EVERY_FEATURE)
    for t in range(60):
        expected = stream.update(bars.open[t], bars.high[t], bars.low[t], bars.close[t], bars.volume[t])
    bad = bars.close[60].copy()
    bad[1] = np.nan
    with pytest.raises(InvalidInput, match="close of BTC/USD at bar 0 is nan"):
        stream.update(bars.open[60], bars.high[60], bars.low[60], bad, bars.volume[60])
    assert stream.bars_seen == 60
    expected = stream.update(bars.open[60], bars.high[60], bars.low[60], bars.close[60], bars.volume[60])
    assert expected.tobytes() == compute(bars, EVERY_FEATURE)[60].tobytes()


def test_unusable_bars_are_refused_in_batch_too():
    bars = with_rows(panel(bars=50), lambda column: column.__setitem__((7, 2), -1.0))
    with pytest.raises(InvalidInput, match=r"open of AAA/USD at bar 7 is -1\.0"):
        compute(bars, DEFAULT_FEATURES)


def test_an_empty_panel_has_no_features():
    assert compute(panel(bars=50).rows(0, 0), DEFAULT_FEATURES).shape == (0, 3, 8)


def test_a_spec_without_parameters_means_the_defaults():
    bars = panel(bars=60)
    assert compute(bars, [FeatureSpec(name="cci")]).tobytes() == compute(bars, [spec_of("cci")]).tobytes()


def test_scaling_is_fitted_on_the_training_rows_only_and_ignores_warm_up():
    features = compute(panel(), DEFAULT_FEATURES)
    mean, std = fit_scaling(features, slice(0, 250))
    spoiled = features.copy()
    spoiled[250:] = 1e9
    again = fit_scaling(spoiled, slice(0, 250))
    assert mean.tobytes() == again[0].tobytes()
    assert std.tobytes() == again[1].tobytes()
    rows = features[:250].reshape(-1, 8)
    np.testing.assert_allclose(mean, np.nanmean(rows, axis=0))
    np.testing.assert_allclose(std, np.nanstd(rows, axis=0))


def test_a_constant_feature_scales_to_zero():
    mean, std = fit_scaling(np.full((50, 2, 1), 0.3), slice(None))
    assert (mean[0], std[0]) == (pytest.approx(0.3), 1.0)


def test_scaling_on_fewer_rows_than_the_warm_up_is_refused():
    with pytest.raises(InvalidInput, match="more bars than its warm-up"):
        fit_scaling(compute(panel(), DEFAULT_FEATURES), slice(0, 10))
