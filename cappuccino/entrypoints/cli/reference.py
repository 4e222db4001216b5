"""docs/reference/cli.md, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from cappuccino.core.errors import CappuccinoError, IntegrityError, InvariantViolation, RetryLater, UserError
from cappuccino.entrypoints.cli import INTERRUPTED
from cappuccino.entrypoints.cli.app import app


def commands(header: str) -> str:
    """Every command with its options and examples, as Markdown."""
    lines = [f"<!-- {header} -->", "# Command line", "", "`kubectl cappuccino` is the same program.", ""]
    lines += ["| Exit code | Means |", "|---|---|", *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()), ""]
    for path, command in _walk(get_command(app), "cappuccino"):
        lines += [f"## {path}", "", *_text(command.help or ""), ""]
        options = [p for p in command.params if not getattr(p, "hidden", False)]
        if options:
            lines += ["| Option | Default | Meaning |", "|---|---|---|", *map(_option, options), ""]
    return "\n".join(lines)


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from _walk(child, f"{path} {name}")


EXIT_CODES = {
    0: "It did what it says.",
    CappuccinoError.exit_code: "It could not.",
    UserError.exit_code: "Something you gave must change; the message names it.",
    IntegrityError.exit_code: "Stored bytes are not what their digest or schema says.",
    InvariantViolation.exit_code: "A rule of our own was broken; nothing was traded past it.",
    RetryLater.exit_code: "A service is away or busy: try again.",
    INTERRUPTED: "Interrupted.",
}


def _text(help_text: str) -> Iterator[str]:
    """Paragraphs; what follows \\b is an example block."""
    inside = False
    for line in inspect.cleandoc(help_text).splitlines():
        if line.strip() == "\b":
            yield "```"
            inside = True
        elif inside and not line.strip():
            yield "```"
            inside = False
        else:
            yield line.removeprefix("  ") if inside else line
    if inside:
        yield "```"


def _option(parameter: Any) -> str:
    names = (
        ", ".join(f"`{name}`" for name in parameter.opts) if parameter.param_type_name == "option" else f"`{parameter.name}`"
    )
    default = parameter.default
    shown = "" if default in (None, False, "") or callable(default) else f"`{getattr(default, 'value', default)}`"
    return f"| {names} | {shown} | {getattr(parameter, 'help', '') or ''} |"
