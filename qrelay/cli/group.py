"""What every group of commands is: commands load when they are called, a mistyped one is told with the likely ones,
completion imports nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from qrelay.nearest import did_you_mean

_COLUMNS: Final = 72
"""Of an example's line: click indents it by 4, and a terminal has 80."""


class Group(click.Group):
    """A group of `qrelay`. Groups that it makes are of this class too.

    lazy: command -> "module:name", imported when it is called.
    """

    group_class = type

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **given: Any) -> None:
        super().__init__(*args, **given)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, sorted."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None: there is none of this name."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with. Raises click.UsageError: there is none of this name."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            hint = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(
                f"`{ctx.command_path}` has no command {name!r}.{hint or self._file_hint(ctx, name)}", ctx
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands alone, which imports none of them; options as click has them."""
        names = [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    @staticmethod
    def _file_hint(ctx: click.Context, name: str) -> str:
        """For who gives a file to --json, as some groups once took it."""
        return f" --json takes no file: write --json-file {name}." if ctx.params.get("as_json") else ""


def example(*lines: str) -> str:
    """The epilog of a command's help: how it is called. A long line continues after a backslash."""
    return "\b\nExample:\n" + "\n".join(f"  {part}" for line in lines for part in _broken(line))


def _broken(line: str) -> list[str]:
    """The line in parts that fit a terminal, broken before options; each but the last has a backslash at its end."""
    parts = [""]
    for word in line.split(" --"):
        grown = f"{parts[-1]} --{word}" if parts[-1] else word
        if len(grown) <= _COLUMNS:
            parts[-1] = grown
        else:
            parts[-1] += " \\"
            parts.append(f"    --{word}")
    return parts
