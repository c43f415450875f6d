"""docs/cli.md is what ``--help`` prints; ``python tests/docs/test_cli_reference.py`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from unprompt.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def help_of(command: click.Command, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=" ".join(names), terminal_width=100, max_content_width=100)
    context.help_option_names = ["-h", "--help"]
    yield " ".join(names), command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from help_of(child, (*names, name))


def render() -> str:
    parts = ["# The command line\n\nWhat `--help` prints; generated, and checked by a test.\n"]
    parts += [f"## {name}\n\n```text\n{text}\n```\n" for name, text in help_of(main, ("unprompt",))]
    return "\n".join(parts)


def test_the_page_has_not_drifted() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python tests/docs/test_cli_reference.py"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
