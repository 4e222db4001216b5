"""`cappuccino`, and `kubectl cappuccino`: the command line.

Every command module imports typer and nothing slow; the rest is imported inside the commands, so that help and completion
answer at once. An error is one line on stderr and an exit code from core/errors.py; `--debug` shows where it came from.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    from typer import Abort, TyperException
    from typer.main import get_command

    from cappuccino.core.errors import CappuccinoError
    from cappuccino.entrypoints.cli.app import app
    from cappuccino.entrypoints.cli.target import called_as_plugin

    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    name = "kubectl cappuccino" if called_as_plugin() else "cappuccino"
    try:
        code = get_command(app).main(args=arguments or ["--help"], prog_name=name, standalone_mode=False)
    except CappuccinoError as error:
        return _failed(str(error), error.exit_code, debug=debug)
    except TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "cappuccino")
        return _failed(f"{error.format_message()} See `{path} --help`.", error.exit_code, debug=debug)
    except (Abort, KeyboardInterrupt):
        return _failed("interrupted", INTERRUPTED, debug=False)
    except BrokenPipeError:  # `cappuccino get trials | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _failed(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1, debug=debug)
    return code if isinstance(code, int) else 0


def _failed(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print("\n".join(f"error: {line}" for line in message.splitlines()), file=sys.stderr)  # noqa: T201
    return code
