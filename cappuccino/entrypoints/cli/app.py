"""The tree of commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cappuccino.entrypoints.cli import bars, bundles, ledger, logs, objects, promotions, reports, status, traders, workers


class Grouped(TyperGroup):
    """Lists commands under their panels, in the order of registration. Plain text: rich's help takes 0.2 s to import."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            panel = getattr(command, "rich_help_panel", None)
            panels.setdefault(panel if isinstance(panel, str) else "Other", []).append((name, command.get_short_help_str(90)))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


app = typer.Typer(
    name="cappuccino",
    cls=Grouped,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
    help="A factory for crypto trading agents: manifests in, graded paper traders out.",
    epilog="Start with `cappuccino run` in one terminal and `cappuccino apply -f examples/quickstart/` in another. On"
    " Kubernetes `kubectl cappuccino` is the same program; `--context` or `--kubernetes` make it so for one command.",
)


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from. May stand anywhere.")] = False,
) -> None:
    """`--debug` is taken by main(), which meets the errors; it stands here to be in the help."""


app.command(rich_help_panel="Objects")(objects.apply)
app.command(rich_help_panel="Objects")(objects.get)
app.command(rich_help_panel="Objects")(objects.describe)
app.command(rich_help_panel="Objects")(objects.delete)
app.command(rich_help_panel="Objects")(logs.logs)
app.command(rich_help_panel="Trading")(status.status)
app.command(rich_help_panel="Trading")(traders.halt)
app.command(rich_help_panel="Trading")(traders.resume)
app.command(rich_help_panel="Trading")(promotions.evidence)
app.command(rich_help_panel="Trading")(promotions.promote)
workers.register(app)
app.command(rich_help_panel="Trading")(reports.report)
app.command(rich_help_panel="Bars and bundles")(bundles.backtest)
app.add_typer(bars.data, name="data", rich_help_panel="Bars and bundles")
app.add_typer(ledger.audit, name="audit", rich_help_panel="Trading")


@app.command()
def version(short: Annotated[bool, typer.Option("--short", help="The number only.")] = False) -> None:
    """Print the version.

    Examples:

    \b
      cappuccino version
    """
    import platform
    from importlib.metadata import version as installed

    number = installed("cappuccino")
    typer.echo(number if short else f"cappuccino {number}, Python {platform.python_version()}, {platform.platform(terse=True)}")
