"""`kubectl_complete-cappuccino`: what kubectl asks for when somebody presses Tab after `kubectl cappuccino`.

kubectl 1.26 and newer call it with the words so far and read one completion a line, then `:` and a directive.
Source: kubectl's page on plugins; the directives are cobra's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

FILES, NO_FILES = 0, 4  # what the shell may offer besides: files, or nothing


def main(argv: Sequence[str] | None = None) -> int:
    from click.shell_completion import CompletionItem, ShellComplete
    from typer.main import get_command

    from cappuccino.entrypoints.cli.app import app

    *words, begun = list(sys.argv[1:] if argv is None else argv) or [""]
    items: list[CompletionItem] = ShellComplete(get_command(app), {}, "cappuccino", "").get_completions(words, begun)
    plain = [item for item in items if item.type == "plain"]
    lines = [f"{item.value}\t{item.help}" if item.help else str(item.value) for item in plain]
    print(*lines, f":{NO_FILES if plain else FILES}", sep="\n")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
