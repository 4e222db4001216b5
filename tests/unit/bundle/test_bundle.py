from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.bundle import Bundle, ensemble_of, fetch_local, load, members, open_local, save, strategy_of
from cappuccino.bundle.format import MANIFEST, pack, unpack
from cappuccino.core.errors import Conflict, IntegrityError, InvalidInput, NotFound
from cappuccino.core.identifiers import canonical_json, sha256_hex
from cappuccino.core.timeframe import TIMEFRAMES, Timeframe
from cappuccino.exchange.venue import Costs
from cappuccino.market.features import spec_of
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.ensemble import Ensemble
from cappuccino.strategies.hold import Hold
from cappuccino.strategies.interface import Contract
from cappuccino.strategies.trend import Trend, TrendParameters

SYMBOLS = ("BTC/USD", "ETH/USD")


class Memory:
    """Blobs in a dictionary; `fail_after` makes the n-th put crash, as a killed process does."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.held: dict[str, bytes] = {}
        self.fail_after = fail_after

    def put(self, key: str, payload: bytes) -> None:
        if self.fail_after is not None and len(self.held) >= self.fail_after:
            raise KeyboardInterrupt
        if self.held.setdefault(key, payload) != payload:
            raise Conflict(key)

    def replace(self, key: str, payload: bytes) -> None:
        self.held[key] = payload

    def get(self, key: str) -> bytes:
        if key not in self.held:
            raise NotFound(key)
        return self.held[key]

    def exists(self, key: str) -> bool:
        return key in self.held

    def delete(self, key: str) -> None:
        self.held.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.held if key.startswith(prefix))


def contract(**changes: Any) -> Contract:
    base = Contract(
        symbols=SYMBOLS,
        timeframe=Timeframe.parse("1h"),
        features=(spec_of("return", {"bars": 24}), spec_of("bb_width")),
        lookback=1,
        warmup_bars=200,
    )
    return replace(base, **changes)


def trend(enter: float = 0.02, **changes: Any) -> Bundle:
    parameters = TrendParameters(feature=spec_of("return", {"bars": 24}), enter=enter, exit=0.0)
    values: dict[str, Any] = {
        "kind": "trend",
        "contract": contract(),
        "parameters": parameters.to_values(),
        "sizing": Sizing(),
        "barriers": Barriers(),
        "costs": Costs(slippage_by_symbol_bps={"BTC/USD": 5.0}),
        "capital_usd": 10_000.0,
        "card": {"study_uid": "uid-1", "number": 3, "seeds": [1, 2], "scores": {"sharpe": 1.5}},
    }
    return Bundle(**(values | changes))


def saved(bundle: Bundle) -> tuple[Memory, str]:
    blobs = Memory()
    return blobs, save(blobs, bundle)


# --- round trip and identity ------------------------------------------------------------------------


def test_a_bundle_comes_back_as_it_was_saved() -> None:
    bundle = trend()
    blobs, digest = saved(bundle)
    assert load(blobs, digest) == bundle
    assert digest == bundle.digest == sha256_hex(blobs.get(f"bundles/{digest}/manifest.json"))
    assert set(blobs.held) == {f"bundles/{digest}/{name}" for name in ("manifest.json", "card.json")}


fractions = st.floats(0, 1)
bundles = st.builds(
    trend,
    enter=st.floats(0, 1000),
    contract=st.builds(
        contract,
        symbols=st.permutations(["BTC/USD", "ETH/USD", "SOL/USD"]).map(tuple),
        timeframe=st.sampled_from(TIMEFRAMES).map(Timeframe.parse),
        lookback=st.integers(1, 64),
        warmup_bars=st.integers(0, 2000),
        interval=st.integers(1, 24),
    ),
    sizing=st.builds(Sizing, max_weight=fractions, dead_zone=fractions, min_change=fractions, cash_buffer=fractions),
    barriers=st.builds(
        Barriers,
        stop=st.none() | fractions,
        take_profit=st.none() | st.floats(0, 10),
        trail=st.none() | fractions,
        max_hold_bars=st.none() | st.integers(1, 1000),
    ),
    costs=st.builds(Costs, fee_bps=st.floats(0, 1000), slippage_bps=st.floats(0, 1000)),
    capital_usd=st.floats(0.01, 1e9),
    card=st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.lists(st.floats(-1, 1)), max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(bundles)
def test_any_bundle_survives_a_round_trip(bundle: Bundle) -> None:
    blobs, digest = saved(bundle)
    again = load(blobs, digest)
    assert again == bundle
    assert again.digest == digest


@settings(max_examples=60, deadline=None)
@given(bundles, bundles)
def test_equal_digests_mean_equal_bundles(one: Bundle, two: Bundle) -> None:
    assert (one.digest == two.digest) == (one == two)


def test_the_same_content_has_the_same_digest_however_it_is_spelled() -> None:
    one = trend(capital_usd=10_000, card={"a": 1, "b": 2}, costs=Costs(fee_bps=25, slippage_bps=5))
    two = trend(capital_usd=10_000.0, card={"b": 2, "a": 1}, costs=Costs(fee_bps=25.0, slippage_bps=5.0))
    assert one.digest == two.digest


def test_everything_that_is_traded_is_in_the_digest() -> None:
    variants = [
        trend(),
        trend(enter=0.03),
        trend(sizing=Sizing(max_weight=0.2)),
        trend(barriers=Barriers.off()),
        trend(costs=Costs(fee_bps=0)),
        trend(capital_usd=1.0),
        trend(card={}),
        trend(contract=contract(symbols=SYMBOLS[::-1])),
        trend(contract=contract(features=contract().features[::-1])),
        trend(contract=contract(interval=2)),
    ]
    assert len({bundle.digest for bundle in variants}) == len(variants)


def test_a_timestamp_in_the_card_is_refused() -> None:
    with pytest.raises(InvalidInput, match="created_at"):
        trend(card={"nested": [{"created_at": "2024-01-01"}]})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"capital_usd": 0.0}, "capital_usd 0.0"),
        ({"capital_usd": float("nan")}, "capital_usd nan"),
        ({"kind": "pickle"}, "kind 'pickle'"),
        ({"sizing": Sizing(max_weight=1.5)}, "max_weight 1.5"),
        ({"costs": Costs(fee_bps=-1)}, "fee_bps"),
        ({"contract": contract(symbols=())}, "symbols"),
        ({"contract": contract(lookback=0)}, "lookback 0"),
        ({"files": {"../escape": b""}}, "'../escape'"),
        ({"files": {"/etc/passwd": b""}}, "'/etc/passwd'"),
        ({"files": {"manifest.json": b""}}, "'manifest.json'"),
    ],
)
def test_a_bundle_that_cannot_be_is_refused_with_the_value(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        trend(**changes)


# --- tampering --------------------------------------------------------------------------------------


def two_members() -> Bundle:
    return ensemble_of([trend(0.02), trend(0.03)], vote="majority", source_study="uid-1", card={"study_uid": "uid-1"})


@pytest.mark.parametrize("make", [trend, two_members], ids=["trend", "ensemble"])
def test_no_byte_of_any_file_can_change_unnoticed(make: Callable[[], Bundle]) -> None:
    blobs, digest = saved(make())
    for key, body in list(blobs.held.items()):
        for at in range(0, len(body), 7):
            blobs.held[key] = body[:at] + bytes([body[at] ^ 0x01]) + body[at + 1 :]
            with pytest.raises(IntegrityError, match=key.removeprefix(f"bundles/{digest}/")):
                load(blobs, digest)
        blobs.held[key] = body
    assert load(blobs, digest) == make()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda held, base: held.update({base + "card.json": held[base + "card.json"][:-1]}), "card.json has .* bytes"),
        (lambda held, base: held.update({base + "card.json": b""}), "card.json has 0 bytes"),
        (lambda held, base: held.update({base + "card.json": held[base + "card.json"] + b" "}), "card.json has"),
        (lambda held, base: held.pop(base + "card.json"), "card.json is missing"),
        (lambda held, base: held.update({base + "policy.pkl": b"x"}), "policy.pkl is not in the manifest"),
        (
            lambda held, base: held.update({base + "manifest.json": held[base + "manifest.json"][:-5]}),
            "manifest.json has SHA-256",
        ),
    ],
    ids=["truncated", "empty", "longer", "missing", "extra", "manifest truncated"],
)
def test_a_spoiled_folder_is_refused_by_the_name_of_the_file(spoil: Any, named: str) -> None:
    blobs, digest = saved(trend())
    spoil(blobs.held, f"bundles/{digest}/")
    with pytest.raises(IntegrityError, match=named):
        load(blobs, digest)


def forge(change: Callable[[dict[str, Any]], Any]) -> None:
    """Unpacks a trend bundle whose manifest was changed and whose digest is right all the same."""
    files = pack(trend())
    manifest = json.loads(files[MANIFEST])
    change(manifest)
    files[MANIFEST] = canonical_json(manifest)
    unpack(files, files.__getitem__, digest=sha256_hex(files[MANIFEST]), where="forged")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.update(schema="cappuccino/bundle/v2"), "'cappuccino/bundle/v2'"),
        (lambda m: m.update(kind="pickle"), "kind 'pickle' is unknown"),
        (lambda m: m.update(made_at="today"), "made_at"),
        (lambda m: m.pop("barriers"), "barriers"),
        (lambda m: m.update(capital_usd="10000"), "does not fit"),
        (lambda m: m.update(capital_usd=-1.0), "capital_usd -1.0"),
        (lambda m: m["sizing"].update(max_weight="0.3"), "does not fit"),
        (lambda m: m["sizing"].update(leverage=3.0), "leverage"),
        (lambda m: m["sizing"].pop("max_weight"), "sizing"),
        (lambda m: m["barriers"].update(stop=True), "barriers"),
        (lambda m: m["contract"].update(timeframe="7h"), "'7h'"),
        (lambda m: m["contract"].update(lookback=1.0), "contract"),
        (lambda m: m["contract"].update(features="none"), "does not fit"),
        (lambda m: m.update(contract=[]), "does not fit"),
        (lambda m: m.update(parameters=[1]), "does not fit"),
        (lambda m: m.update(files={}), "must name card.json"),
        (lambda m: m["files"].update({"../../etc/passwd": {"sha256": "0" * 64, "size": 1}}), "stay inside"),
        (lambda m: m["files"].update({"card.json": 3}), "card.json as 3"),
    ],
)
def test_a_manifest_that_does_not_fit_the_schema_is_refused_though_its_digest_is_right(change: Any, named: str) -> None:
    with pytest.raises(IntegrityError, match=named):
        forge(change)


def test_a_forged_manifest_that_changes_nothing_passes() -> None:
    forge(lambda manifest: None)


def test_a_manifest_that_is_not_canonical_json_is_refused() -> None:
    files = pack(trend())
    files[MANIFEST] = json.dumps(json.loads(files[MANIFEST]), indent=1).encode()
    with pytest.raises(IntegrityError, match="not canonical"):
        unpack(files, files.__getitem__, digest=sha256_hex(files[MANIFEST]), where="forged")


def test_a_bundle_under_another_ones_digest_is_refused() -> None:
    blobs, digest = saved(trend())
    other = trend(0.5).digest
    for key, body in list(blobs.held.items()):
        blobs.held[key.replace(digest, other)] = body
    with pytest.raises(IntegrityError, match=f"addressed as {other}"):
        load(blobs, other)


def test_an_unknown_digest_is_not_found_and_a_malformed_one_is_refused() -> None:
    with pytest.raises(NotFound, match="a" * 64):
        load(Memory(), "a" * 64)
    for digest in ("", "../x", "A" * 64, "a" * 63):
        with pytest.raises(InvalidInput, match="digest"):
            load(Memory(), digest)


# --- writing once -----------------------------------------------------------------------------------


def test_a_bundle_that_was_half_written_does_not_exist_and_saving_again_completes_it() -> None:
    bundle = two_members()
    total = len(pack(bundle))
    for files in range(total):
        blobs = Memory(fail_after=files)
        with pytest.raises(KeyboardInterrupt):
            save(blobs, bundle)
        with pytest.raises(NotFound):
            load(blobs, bundle.digest)
        blobs.fail_after = None
        assert load(blobs, save(blobs, bundle)) == bundle


def test_saving_twice_is_success_and_saving_over_other_bytes_is_a_conflict() -> None:
    blobs, digest = saved(trend())
    assert save(blobs, trend()) == digest
    blobs.held[f"bundles/{digest}/card.json"] = b"{}"
    with pytest.raises(Conflict):
        save(blobs, trend())


def test_what_load_would_refuse_is_not_saved() -> None:
    blobs = Memory()
    for bundle in (trend(parameters={"feature": "return"}), trend(files={"x": b""}), trend(kind="hold"), trend(kind="policy")):
        with pytest.raises(IntegrityError):
            save(blobs, bundle)
    assert blobs.held == {}


# --- a trader's copy --------------------------------------------------------------------------------


def test_a_fetched_bundle_needs_the_store_no_more(tmp_path: Path) -> None:
    bundle = two_members()
    blobs, digest = saved(bundle)
    assert fetch_local(blobs, digest, tmp_path / "cache") == bundle
    assert fetch_local(Memory(), digest, tmp_path / "cache") == bundle
    assert open_local(tmp_path / "cache", digest) == bundle
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest]


def test_a_copy_that_was_tampered_with_is_refused_by_its_path(tmp_path: Path) -> None:
    blobs, digest = saved(trend())
    fetch_local(blobs, digest, tmp_path)
    card = tmp_path / digest / "card.json"
    card.write_bytes(card.read_bytes().replace(b"uid-1", b"uid-2"))
    with pytest.raises(IntegrityError, match=f"{tmp_path}.*card.json"):
        fetch_local(blobs, digest, tmp_path)


def test_a_bundle_that_does_not_verify_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs, digest = saved(trend())
    blobs.held[f"bundles/{digest}/card.json"] = b"{}"
    with pytest.raises(IntegrityError):
        fetch_local(blobs, digest, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound, match="fetch it first"):
        open_local(tmp_path, digest)


def test_traders_that_fetch_at_once_all_get_it(tmp_path: Path) -> None:
    bundle = trend()
    blobs, digest = saved(bundle)
    got: list[Bundle] = []
    start = threading.Barrier(6)

    def fetch() -> None:
        start.wait()
        got.append(fetch_local(blobs, digest, tmp_path))

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [bundle] * 6
    assert [path.name for path in tmp_path.iterdir()] == [digest]


# --- from a bundle to a strategy --------------------------------------------------------------------


def test_each_rule_kind_gives_its_strategy() -> None:
    rule = strategy_of(trend())
    assert isinstance(rule, Trend)
    assert rule.parameters.enter == 0.02
    assert rule.contract == contract()
    assert isinstance(strategy_of(trend(kind="hold", parameters={})), Hold)


def test_an_ensemble_holds_its_members_whole() -> None:
    one, two = trend(0.02), trend(0.03, contract=contract(features=(spec_of("return", {"bars": 24}),), warmup_bars=300))
    bundle = ensemble_of([one, two], vote="mean", source_study="uid-1", weights=[1, 3])
    blobs, digest = saved(bundle)
    loaded = load(blobs, digest)
    assert members(loaded) == (one, two)
    strategy = strategy_of(loaded)
    assert isinstance(strategy, Ensemble)
    assert (strategy.vote, strategy.source_study, strategy.weights) == ("mean", "uid-1", (1.0, 3.0))
    assert strategy.contract == bundle.contract == contract(warmup_bars=300)


def test_an_ensemble_names_its_source_study_and_takes_members_that_trade_alike() -> None:
    with pytest.raises(InvalidInput, match="source study"):
        ensemble_of([trend()], vote="majority", source_study="")
    with pytest.raises(InvalidInput, match="differ in"):
        ensemble_of([trend(), trend(capital_usd=5.0)], vote="majority", source_study="uid-1")
    with pytest.raises(InvalidInput, match="twice"):
        ensemble_of([trend(), trend()], vote="majority", source_study="uid-1")
    with pytest.raises(InvalidInput, match="no members"):
        ensemble_of([], vote="majority", source_study="uid-1")


def test_an_ensemble_without_one_of_its_members_is_refused() -> None:
    bundle = two_members()
    gone = bundle.parameters["members"][0]
    files = {name: body for name, body in bundle.files.items() if gone not in name}
    with pytest.raises(IntegrityError, match=gone):
        save(Memory(), replace(bundle, files=files))
    with pytest.raises(IntegrityError, match="belongs to no member"):
        save(Memory(), replace(bundle, parameters=dict(bundle.parameters) | {"members": [gone]}))
