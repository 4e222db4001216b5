"""`python -m cappuccino.entrypoints.worker NAME ARGUMENTS`: how the local cluster starts its processes.

The process ends with its runner (core/lifeline.py). An error is one line on stderr and an exit code that says what the
supervisor must do (core/errors.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from cappuccino.core import lifeline
from cappuccino.core.errors import CappuccinoError, InvalidInput

NAMES = ("ingest", "train", "validate", "trade", "exchange", "database", "dashboard")


def main(argv: Sequence[str]) -> int:
    lifeline.watch()
    name = argv[0] if argv else ""
    try:
        if name not in NAMES:
            raise InvalidInput(f"worker {name!r} is unknown: use {', '.join(NAMES)}")
        module = import_module(f"cappuccino.entrypoints.{name}")
        return int(module.main(list(argv[1:])))
    except CappuccinoError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
