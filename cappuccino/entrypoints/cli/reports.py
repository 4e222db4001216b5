"""report: one Deployment as an HTML page, from the record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cappuccino.core.errors import InvalidInput, NotFound, RetryLater
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask

if TYPE_CHECKING:
    from cappuccino.entrypoints.reporting import Told
    from cappuccino.market.bars import Bars

_LEDGER = "Ledger"


def report(
    what: Annotated[list[str], typer.Argument(help="A Deployment: mdep/NAME, or deployment NAME.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
    bars: Annotated[Path | None, typer.Option("--bars", help="File of bars to draw the trades on.", show_default=False)] = None,
    exchange: Annotated[
        str, typer.Option("--exchange", envvar="CAPPUCCINO_EXCHANGE_URL", help="Simulated exchange whose ledger is compared.")
    ] = "",
    artifacts: Annotated[str, typer.Option("--artifacts", envvar="CAPPUCCINO_ARTIFACTS_URL", help="URL of the store.")] = "",
    namespace: options.Namespace = "default",
    state: options.State = None,
) -> None:
    """Write the report of a Deployment: the search, the gates, the traders against HODL and cash.

    Examples:

    \b
      cappuccino report mdep/quickstart
      cappuccino report mdep/quickstart --bars bars.parquet --exchange http://127.0.0.1:8700 --out build/report.html
    """
    from dataclasses import replace

    from cappuccino.core.clock import SystemClock
    from cappuccino.entrypoints.reporting import report_of, summary_of
    from cappuccino.evaluation.report import render

    kind, name = kinds.one(what)
    if kind != "Deployment":
        raise InvalidInput(f"a report is of a Deployment, not of {kinds.shown(kind, name)}: name one, as mdep/quickstart")

    async def run(cluster: Cluster) -> tuple[Told, dict[str, Any]]:
        from cappuccino.adapters.artifacts import open_blobs
        from cappuccino.entrypoints.reporting import collect

        blobs = open_blobs(artifacts or (cluster.state / "artifacts").as_uri())
        told = await collect(cluster.objects, cluster.record, blobs, namespace=namespace, name=name)
        return told, await _ledgers(exchange, [item.account.name for item in told.traded]) if exchange else {}

    told, ledgers = ask(state, run)
    summary = summary_of(told, ledgers, source=f"deployment/{name}", elapsed={}, ended=True)
    drawn = _bars(bars, told) if bars else None
    page = report_of(told, summary, drawn, title=f"Deployment {name}", now=SystemClock().now())
    if not exchange:
        facts = [fact for fact in page.facts if fact[0] != _LEDGER]
        page = replace(page, facts=[*facts, (_LEDGER, "not compared: --exchange names the exchange to ask")])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(page), encoding="utf-8")
    typer.echo(f"{out}: {summary.headline}")


async def _ledgers(url: str, accounts: list[str]) -> dict[str, Any]:
    """The exchange's own record of each account; one that it does not know is left out."""
    import aiohttp

    found = {}
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            for account in accounts:
                async with session.get(f"{url.rstrip('/')}/control/v1/accounts/{account}/ledger") as answer:
                    if answer.status == 200:
                        found[account] = await answer.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RetryLater(f"exchange {url} does not answer ({error}): start it, or leave --exchange out") from error
    return found


def _bars(file: Path, told: Told) -> Bars:
    from cappuccino.adapters.sources.files import FileBars
    from cappuccino.market.quality import check

    symbols = sorted({fill["symbol"] for item in told.traded for fill in item.account.fills})
    source = FileBars(file)
    frame = source.timeframe()
    if frame is None or not symbols:
        raise NotFound(f"{file}: there is nothing to draw: no trade yet, or no two neighbouring bars")
    ranges = source.available(symbols, frame)
    end = max(upto for _, upto in ranges.values())
    return check(source.fetch(symbols, frame, min(start for start, _ in ranges.values()), end), symbols, frame, end=end)[0]
