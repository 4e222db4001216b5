"""report: one Deployment as an HTML page, from the record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cappuccino.core.errors import InvalidInput, NotFound, RetryLater
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.target import Target

if TYPE_CHECKING:
    from cappuccino.entrypoints.reporting import Told
    from cappuccino.market.bars import Bars

_LEDGER = "Ledger"
_STDOUT = Path("-")


@options.targeted
def report(
    target: Target,
    what: Annotated[list[str], typer.Argument(help="A Deployment: mdep/NAME, or deployment NAME.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The page to write; - for standard output.")] = Path("report.html"),
    bars: Annotated[Path | None, typer.Option("--bars", help="File of bars to draw the trades on.", show_default=False)] = None,
    exchange: Annotated[
        str, typer.Option("--exchange", envvar="CAPPUCCINO_EXCHANGE_URL", help="Simulated exchange whose ledger is compared.")
    ] = "",
    artifacts: Annotated[str, typer.Option("--artifacts", envvar="CAPPUCCINO_ARTIFACTS_URL", help="URL of the store.")] = "",
    operator_namespace: options.OperatorNamespace = "",
) -> None:
    """Write the report of a Deployment: the search, the gates, the traders against HODL and cash.

    On Kubernetes it is made inside the operator's pod, which alone reaches the record: that needs kubectl, and the right to
    create pods/exec there. The bars to draw on stay out of it then.

    Examples:

    \b
      cappuccino report mdep/quickstart
      cappuccino report mdep/quickstart --bars bars.parquet --exchange http://127.0.0.1:8700 --out build/report.html
    """
    kind, name = kinds.one(what)
    if kind != "Deployment":
        raise InvalidInput(f"a report is of a Deployment, not of {kinds.shown(kind, name)}: name one, as mdep/quickstart")
    if target.remote and not target.in_cluster:
        if bars:
            raise InvalidInput("--bars is a file of this machine, and the report is made in the cluster: leave it out")
        page, headline = (
            _made_there(target, name, exchange=exchange, operator_namespace=operator_namespace),
            "made in the cluster",
        )
    else:
        page, headline = _made_here(target, name, bars=bars, exchange=exchange, artifacts=artifacts)
    if out == _STDOUT:
        typer.echo(page)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    typer.echo(f"{out}: {headline}")


def _made_there(target: Target, name: str, *, exchange: str, operator_namespace: str) -> str:
    """`exchange` as the operator's pod reaches it."""
    from cappuccino.entrypoints.cli.remote import chosen, in_the_operator

    namespace = target.namespace or chosen(target).namespace
    arguments = ["report", f"mdep/{name}", "--namespace", namespace, "--out", "-"]
    arguments += ["--exchange", exchange] if exchange else []
    return in_the_operator(target, operator_namespace or namespace, arguments)


def _made_here(target: Target, name: str, *, bars: Path | None, exchange: str, artifacts: str) -> tuple[str, str]:
    from dataclasses import replace

    from cappuccino.core.clock import SystemClock
    from cappuccino.entrypoints.reporting import report_of, summary_of
    from cappuccino.entrypoints.settings import state_folder
    from cappuccino.evaluation.report import render

    async def run(cluster: Cluster) -> tuple[Told, dict[str, Any]]:
        from cappuccino.adapters.artifacts import open_blobs
        from cappuccino.entrypoints.reporting import collect

        assert cluster.record is not None  # in the operator's pod, and on this machine
        blobs = open_blobs(artifacts or (state_folder(target.state) / "artifacts").as_uri())
        told = await collect(cluster.objects, cluster.record, blobs, namespace=cluster.namespace, name=name)
        return told, await _ledgers(exchange, [item.account.name for item in told.traded]) if exchange else {}

    told, ledgers = ask(target, run)
    summary = summary_of(told, ledgers, source=f"deployment/{name}", elapsed={}, ended=True)
    drawn = _bars(bars, told) if bars else None
    page = report_of(told, summary, drawn, title=f"Deployment {name}", now=SystemClock().now())
    if not exchange:
        facts = [fact for fact in page.facts if fact[0] != _LEDGER]
        page = replace(page, facts=[*facts, (_LEDGER, "not compared: --exchange names the exchange to ask")])
    return render(page), summary.headline


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
