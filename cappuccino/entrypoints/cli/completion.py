"""`kubectl_complete-cappuccino`: what kubectl runs when somebody presses Tab after `kubectl cappuccino`.

kubectl 1.26 and newer call it with the words so far, and read one completion a line and then `:` with a directive of cobra's.
The program's own completion answers, as it does for bash.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress

from cappuccino.entrypoints.cli import main as program

FILES, NO_FILES = 0, 4  # what the shell may offer besides: files, or nothing


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv) or [""]
    asked = {
        "_CAPPUCCINO_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(["cappuccino", *words]),
        "COMP_CWORD": str(len(words)),
    }
    answer = io.StringIO()
    os.environ.update(asked)
    try:
        with redirect_stdout(answer), suppress(SystemExit):
            program([])
    finally:
        for name in asked:
            del os.environ[name]
    lines = answer.getvalue().split()
    print(*lines, f":{NO_FILES if lines else FILES}", sep="\n")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
