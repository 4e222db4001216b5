"""`make demo`. The demonstration imports much; Ctrl-C is one line from the first moment on, so it is imported here."""

from __future__ import annotations

import os
import signal
import sys

from cappuccino.core.errors import RetryLater


def _interrupted(*_: object) -> None:
    os.write(2, b"error: interrupted: the same command goes on from here; nothing is lost\n")
    os._exit(RetryLater.exit_code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupted)
    from cappuccino.entrypoints.demonstration import main

    sys.exit(main(sys.argv[1:]))
