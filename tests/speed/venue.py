"""The simulated exchange, with the moments at which a bar closed and an order was accepted written to a file.

    python -m tests.speed.venue STAMPS [options of `cappuccino exchange`]

A line each: monotonic seconds, which all processes of a machine share, then `bar NUMBER` or `order ACCOUNT CLIENT_ORDER_ID`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from cappuccino.adapters.venue_server import app
from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.entrypoints import exchange
from cappuccino.exchange.commands import Command, Submit
from cappuccino.exchange.simulator import Outcome


def main(stamps: str, arguments: list[str]) -> int:
    with open(stamps, "a", buffering=1) as file:

        class Stamped(Desk):
            async def execute(self, command: Command) -> Outcome:
                outcome = await super().execute(command)
                if isinstance(command, Submit):
                    file.write(f"{time.monotonic():.6f} order {command.account} {command.request.client_order_id}\n")
                return outcome

            async def advance(self) -> None:
                await super().advance()
                tick = self.exchange.tick
                if tick.bar_closed:
                    file.write(f"{time.monotonic():.6f} bar {tick.bar}\n")

        patched: Any = app
        patched.Desk = Stamped
        return exchange.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
