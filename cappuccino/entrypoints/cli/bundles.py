"""backtest: what a bundle would have done on bars, by the same engine that gates use."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints.cli import options
from cappuccino.entrypoints.cli.options import Document

if TYPE_CHECKING:
    from cappuccino.bundle import Bundle
    from cappuccino.evaluation.backtest import BacktestResult
    from cappuccino.market.bars import Bars


def backtest(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or a digest in the artifact store.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="Bars: Parquet, CSV or Feather.", show_default=False)],
    start: Annotated[str, typer.Option("--start", help="First decision, RFC 3339. Default: after the warm-up.")] = "",
    end: Annotated[str, typer.Option("--end", help="Exclusive, RFC 3339. Default: all bars.")] = "",
    capital_usd: Annotated[float | None, typer.Option("--capital-usd", min=0.01, help="Default: the bundle's.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML report there.", show_default=False)] = None,
    artifacts: Annotated[str, typer.Option("--artifacts", envvar="CAPPUCCINO_ARTIFACTS_URL", help="URL of the store.")] = "",
    state: options.State = None,
    output: options.TextOrJson = Document.TEXT,
) -> None:
    """Trade a bundle over a file of bars, beside buy-and-hold at the same costs.

    Examples:

    \b
      cappuccino backtest .cappuccino/artifacts/bundles/3f0c... bars.parquet
      cappuccino backtest 3f0c... bars.parquet --start 2024-05-01T00:00:00Z --report backtest.html
    """
    from dataclasses import replace

    from cappuccino.bundle import Bundle, strategy_of
    from cappuccino.core.clock import parse_iso, to_epoch
    from cappuccino.entrypoints.recipe import prepare
    from cappuccino.evaluation.backtest import backtest as run
    from cappuccino.risk.barriers import Barriers

    chosen = _bundle(bundle, artifacts, state)
    bars = _bars(file, chosen)
    prepared = prepare(bars, chosen.contract)
    grid = prepared.bars
    first = max(prepared.warmup - 1, 0)
    if start:
        first = max(first, int(grid.close_ts.searchsorted(to_epoch(parse_iso(start)))))
    last = int(grid.close_ts.searchsorted(to_epoch(parse_iso(end)))) - 1 if end else len(grid) - 1
    if last <= first:
        raise InvalidInput(
            f"{file}: {len(grid)} bars of {grid.timeframe} leave none to trade after a warm-up of {prepared.warmup}"
            f"{f' and --start {start}' if start else ''}: give more bars"
        )
    hold = Bundle(
        kind="hold",
        contract=chosen.contract,
        sizing=replace(chosen.sizing, max_weight=1.0),
        barriers=Barriers.off(),
        costs=chosen.costs,
        capital_usd=chosen.capital_usd,
    )
    results = {
        name: run(
            strategy_of(one),
            grid,
            prepared.features,
            first_decision=first,
            last=last,
            capital_usd=capital_usd or chosen.capital_usd,
            costs=one.costs,
            sizing=one.sizing,
            barriers=one.barriers,
            rules=prepared.rules,
        )
        for name, one in (("bundle", chosen), ("hodl", hold))
    }
    figures = {name: _figures(result) for name, result in results.items()}
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(_html(chosen, grid, first, last, results), encoding="utf-8")
    if output is Document.JSON:
        typer.echo(json.dumps({"bundle_digest": chosen.digest, "bars": last - first, **figures}, indent=2))
        return
    from cappuccino.entrypoints.cli.tables import table

    body = [[label, *(_shown(figures[name][label]) for name in figures)] for label in figures["bundle"]]
    typer.echo(f"{chosen.kind} {chosen.digest[:12]} over {last - first:,} bars of {grid.timeframe}")
    typer.echo(table(["", *figures], body))
    if report is not None:
        typer.echo(f"report: {report}")


def _bundle(word: str, artifacts: str, state: Path | None) -> Bundle:
    from cappuccino.adapters.artifacts import open_blobs
    from cappuccino.bundle import load, open_local
    from cappuccino.entrypoints.settings import state_folder

    folder = Path(word)
    if folder.is_dir():
        return open_local(folder.resolve().parent, folder.resolve().name)
    if os.sep in word:
        raise InvalidInput(f"{word}: no such folder: give a bundle's folder, or its digest")
    return load(open_blobs(artifacts or f"file://{state_folder(state)}/artifacts"), word)


def _bars(file: Path, bundle: Bundle) -> Bars:
    from cappuccino.adapters.sources.files import FileBars
    from cappuccino.market.quality import check

    source = FileBars(file)
    frame = source.timeframe() or bundle.contract.timeframe
    ranges = source.available(bundle.contract.symbols, frame)
    end = max(upto for _, upto in ranges.values())
    raw = source.fetch(bundle.contract.symbols, frame, min(first for first, _ in ranges.values()), end)
    bars, report = check(raw, bundle.contract.symbols, frame, end=end)
    if report.quarantined:
        symbol, reason = next(iter(report.quarantined.items()))
        raise InvalidInput(f"{file}: {symbol} is not usable ({reason}): `cappuccino data check {file}` shows the bars")
    return bars


def _figures(result: BacktestResult) -> dict[str, float | int | None]:
    from cappuccino.evaluation import metrics

    score = metrics.score_trades([trade.pnl_usd for trade in result.trades])
    flat = float(result.returns.std()) == 0.0
    return {
        "final_equity_usd": round(float(result.equity[-1]), 2),
        "total_return": result.total_return,
        "sharpe": None if flat else metrics.sharpe(result.returns, result.bars_per_year),
        "max_drawdown": metrics.max_drawdown(result.equity),
        "closed_trades": score.closed,
        "win_rate": score.wins / score.closed if score.closed else None,
        "exposure": result.exposure,
        "fees_usd": round(result.fees_usd, 2),
    }


def _shown(value: float | int | None) -> str:
    return (
        "-"
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:,.4g}"
        if abs(value) < 1000
        else f"{value:,.2f}"
    )


def _html(bundle: Bundle, grid: Bars, first: int, last: int, results: dict[str, Any]) -> str:
    import numpy as np

    from cappuccino.core.clock import SystemClock
    from cappuccino.evaluation.report import ReportInput, TradeMark, TraderReport, render

    mine, hodl = results["bundle"], results["hodl"]
    at = mine.at
    upto = min(len(at), len(hodl.at))  # ruin may end one of them early
    trader = TraderReport(
        name=bundle.digest[:12],
        role="backtest",
        at=at[:upto],
        equity=mine.equity[:upto],
        hodl=hodl.equity[:upto],
        cash=np.full(upto, mine.equity[0]),
        prices={symbol: grid.close[first : first + upto, n] for n, symbol in enumerate(grid.symbols)},
        trades=[TradeMark(at=f.ts, symbol=f.symbol, side=f.side, price=f.price, reason=f.reason) for f in mine.fills],
        facts=[(label.replace("_", " "), _shown(value)) for label, value in _figures(mine).items()],
    )
    return render(
        ReportInput(
            title=f"Backtest of {bundle.kind} {bundle.digest[:12]}",
            headline=f"{last - first:,} bars of {grid.timeframe}, beside buy-and-hold at the same costs.",
            generated_at=SystemClock().now(),
            bars_per_year=mine.bars_per_year,
            traders=[trader],
        )
    )
