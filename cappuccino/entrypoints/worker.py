"""`python -m cappuccino.entrypoints.worker NAME ARGUMENTS`: how both clusters start their processes.

On a laptop the process ends with its runner (core/lifeline.py). An error is one line on stderr and an exit code that says
what the supervisor must do (core/errors.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import import_module

from cappuccino.core import lifeline
from cappuccino.core.errors import AWAY_EXIT_CODE, CappuccinoError, InvalidInput

AWAY_SECONDS = 5.0
NAMES = ("ingest", "train", "validate", "trade", "exchange", "database", "dashboard")


def main(argv: Sequence[str]) -> int:
    supervised = lifeline.watch()
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
        time.sleep(AWAY_SECONDS)  # nobody else paces the next attempt: a Job replaces its pod at once
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
