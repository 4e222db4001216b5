"""`trade`: a Trader on its account, or several, each on its own, in one process.

    python -m cappuccino.entrypoints.trade --account NAME --trader-uid UID --bundle DIGEST [--flatten | --release]
    python -m cappuccino.entrypoints.trade --portfolios [FILE]

What it may do is the Trader's spec, as JSON in CAPPUCCINO_SPEC (a Trader manifest's `spec`), or as --portfolios says. The rest
of the environment: CAPPUCCINO_DATABASE_URL, CAPPUCCINO_ARTIFACTS_URL, CAPPUCCINO_EXCHANGE_URL (venue.url replaces it),
CAPPUCCINO_EXCHANGE_TOKEN, and on Alpaca CAPPUCCINO_SECRETS, where the Secret of venue.accountSecretRef lies. With
CAPPUCCINO_REHEARSAL, which no manifest can set, real venues are played by the exchange: the road to real money without money.

Ends with 0 when the simulated venue's tape ended with everything recorded (or, with --flatten, everything sold); 2 or 3
when a person must act; 70 when a rule of our own was broken, after halting the account; 75 when a restart is worth it;
143 on SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from cappuccino.core import lifeline
from cappuccino.core.errors import CappuccinoError
from cappuccino.entrypoints.health_server import HealthServer
from cappuccino.entrypoints.portfolio import Portfolio
from cappuccino.entrypoints.portfolios import Portfolios
from cappuccino.entrypoints.shared import Shared
from cappuccino.entrypoints.traders import TradeSettings, parser, settings_of, several_of
from cappuccino.entrypoints.venues import release
from cappuccino.telemetry.logs import configure, get_logger
from cappuccino.telemetry.traces import exported


def main(argv: Sequence[str]) -> int:
    """Exit code of the process; one line on stderr says why it is not 0."""
    arguments = parser()
    options = arguments.parse_args(argv)
    if (options.portfolios is None) != all((options.account, options.trader_uid, options.bundle)):
        arguments.error("give --account, --trader-uid and --bundle, or --portfolios")
    if options.die_with_parent:
        os.environ[lifeline.VARIABLE] = "stdin"
        lifeline.watch()
    named = {"account": options.account, "trader_uid": options.trader_uid} if options.portfolios is None else {}
    configure(level=options.log_level, **named)
    try:
        with exported("trade"):
            if options.portfolios is not None:
                return trade_several(several_of(options))
            return trade(settings_of(options))
    except CappuccinoError as error:
        get_logger("trade").error("ended", error=str(error), kind=type(error).__name__, exit_code=error.exit_code)
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def trade(settings: TradeSettings) -> int:
    """Trade until the tape or the process is told to end. Raises CappuccinoError with its exit code."""
    if settings.release:
        release(settings)
        return 0
    with ExitStack() as stack:
        portfolio = Portfolio(settings, stack.enter_context(_shared(settings, portfolios=1)))
        _on_signals(portfolio.stop)
        stack.enter_context(HealthServer(settings.health_host, settings.health_port, {settings.account: portfolio}))
        return portfolio.run()


def trade_several(several: Sequence[TradeSettings]) -> int:
    """As `trade`, for all of them in this process: each account is traded by itself (portfolios.py)."""
    first = several[0]
    with ExitStack() as stack:
        shared = stack.enter_context(_shared(first, portfolios=len(several)))
        portfolios = {settings.account: Portfolio(settings, shared) for settings in several}
        together = Portfolios(list(portfolios.values()))
        _on_signals(together.stop)
        stack.enter_context(HealthServer(first.health_host, first.health_port, portfolios))
        return together.run()


def _shared(settings: TradeSettings, *, portfolios: int) -> AbstractContextManager[Shared]:
    return Shared.open(settings.database_url, settings.artifacts_url, settings.bundle_folder, portfolios=portfolios)


def _on_signals(stop: Callable[[str], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stop(signal.Signals(received).name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
