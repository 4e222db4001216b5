"""`python -m cappuccino.entrypoints.worker NAME ARGUMENTS`: how both clusters start their processes.

On a laptop the process ends with its runner (core/lifeline.py). An error is one line on stderr and an exit code that says
what the supervisor must do (core/errors.py).
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from cappuccino.core import lifeline
from cappuccino.core.errors import AWAY_EXIT_CODE, PREEMPTED_EXIT_CODE, CappuccinoError, InvalidInput

AWAY_SECONDS = 5.0
NAMES = ("ingest", "train", "validate", "trade", "exchange", "database", "dashboard")


def main(argv: Sequence[str]) -> int:
    supervised = lifeline.watch()
    # In a container this is process 1, which a signal without a handler does not end. A program may set its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(PREEMPTED_EXIT_CODE))
    name = argv[0] if argv else ""
    try:
        if name not in NAMES:
            raise InvalidInput(f"worker {name!r} is unknown: use {', '.join(NAMES)}")
        module = import_module(f"cappuccino.entrypoints.{name}")
        code = int(module.main(list(argv[1:])))
    except CappuccinoError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    if code == AWAY_EXIT_CODE and not supervised:
        time.sleep(AWAY_SECONDS)  # what is away is asked no more often, however soon the next attempt comes
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
