"""The processes: the runner, and the workers that it starts. Worker commands hand their arguments through untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

import typer

PASS_THROUGH = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

# Command -> (what it does, an example). The module of the same name in cappuccino.entrypoints has `main(argv) -> exit code`.
WORKERS: dict[str, tuple[str, str]] = {
    "run": ("Run the local cluster in this terminal: database, controllers, workers. Ctrl-C ends it; nothing is lost.", "run"),
    "ingest": ("Refresh a Dataset and snapshot it. Started by the runner.", "ingest --help"),
    "train": ("Train trials of a Study. Started by the runner.", "train --help"),
    "validate": ("Take a bundle through the gates. Started by the runner.", "validate --help"),
    "trade": ("Trade one bundle on one venue account. Started by the runner.", "trade --help"),
    "exchange": ("Serve the simulated exchange, which speaks Alpaca's protocol.", "exchange --help"),
}


class Main(Protocol):
    def __call__(self, argv: Sequence[str]) -> int: ...


def register(app: typer.Typer) -> None:
    for name, (summary, example) in WORKERS.items():
        text = f"{summary}\n\nIts own options: `cappuccino {name} --help`.\n\nExamples:\n\n\b\n  cappuccino {example}"
        app.command(name=name, help=text, context_settings=PASS_THROUGH, rich_help_panel=PANEL)(_command(name))


PANEL = "Processes"


def _command(name: str) -> Callable[[typer.Context], int]:
    def command(context: typer.Context) -> int:
        module = import_module(f"cappuccino.entrypoints.{'runner' if name == 'run' else name}")
        return cast(Main, module.main)(context.args)

    return command
