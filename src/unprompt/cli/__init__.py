"""The command line. Bodies parse, call and print; what they call is imported when they run, so that help is instant."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from unprompt.errors import UnpromptError


class _Group(click.Group):
    """Turns what is the input's or the machine's fault into one line and exit status 1; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UnpromptError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            # The reader has gone, as with `| head`: drop what is buffered, and end with the status of SIGPIPE.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except OSError as error:
            raise click.ClickException(_os_error(error)) from error


def _os_error(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="unprompt")
@click.option("-v", "--verbose", count=True, help="Log what is done; -vv logs everything.")
def main(verbose: int) -> None:
    """Which prompt made this picture?

    Build a library of pictures and their prompts once, then ask it about any picture:

    \b
      unprompt build ~/pictures --library my.library
      unprompt query photo.png --library my.library -k 5
    """
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def _add_commands() -> None:
    from unprompt.cli import (
        analyze,
        build,
        caption,
        embed,
        embed_train,
        evaluate,
        export,
        fetch,
        index,
        library,
        mine,
        push,
        query,
        train,
        vocabulary,
    )

    for command in (
        build.build,
        build.add,
        build.remove,
        export.export,
        fetch.fetch,
        push.push,
        query.query,
        analyze.analyze,
        caption.caption,
        embed.embed,
        embed_train.embed_train,
        train.train,
        evaluate.evaluate,
        vocabulary.vocabulary,
        index.index,
        library.info,
        library.verify,
    ):
        main.add_command(command)
    vocabulary.vocabulary.add_command(mine.mine)


_add_commands()
