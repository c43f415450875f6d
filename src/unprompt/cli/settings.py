"""The options that ``query`` and ``analyze`` share: which fragments may be found, and how a prompt is composed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unprompt.search.settings import Settings

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_RANKING: list[Decorator] = [
    click.option("--kinds", metavar="KIND,...",
                 help='Kinds of fragments to look for; all by default, none with "".'),
    click.option("--exclude-kinds", metavar="KIND,...", help="Kinds of fragments to leave out."),
    click.option("--namespaces", metavar="NAME,...", help="Only fragments of these namespaces."),
    click.option("--include", multiple=True, metavar="TERM",
                 help="Only this term, or terms that match a pattern with * and ?. May be repeated."),
    click.option("--exclude", multiple=True, metavar="TERM",
                 help="Not this term, or terms that match a pattern with * and ?. May be repeated."),
    click.option("--min-score", type=float, metavar="X", help="Lowest cosine of a fragment with the picture, -1 to 1."),
    click.option("--min-percentile", type=float, metavar="P",
                 help="Lowest share of reference pictures that a fragment must fit less well, 0 to 1."),
    click.option("--order", type=click.Choice(["cosine", "percentile"]), default="cosine", show_default=True,
                 help="What fragments are ordered by; percentiles compare fairly between kinds."),
    click.option("--collapse", type=float, metavar="X",
                 help="Leave out near-duplicates of better fragments: those of this cosine with them, and those of "
                      "the same words; 0 keeps all.  [default: 0.95]"),
    click.option("--diversity", type=float, metavar="X",
                 help="Maximal marginal relevance: 1 looks at the score alone, 0 at difference alone."),
    click.option("--artists", type=click.Choice(["any", "none", "dead"]), default="any", show_default=True,
                 help="Which artists may be named, be it by a list, within another term, or in a prompt of the "
                      "library; dead: those whose year of death is known."),
    click.option("--forbid", multiple=True, metavar="WORDS", help="Words that may not be said. May be repeated."),
]  # fmt: skip

_COMPOSING: list[Decorator] = [
    click.option("--mode", default="default", show_default=True, metavar="MODE",
                 help="How the final prompt is composed: default, fast, classic, best or negative; or not at all: "
                      "retrieve, the library's best prompt."),
    click.option("--target", default="clip", show_default=True, metavar="NAME",
                 help="What the final prompt must fit into: clip (77 tokens), clip-150, clip-225 (chunks of 75), "
                      "longclip (248), siglip (64, with an encoder that has its tokenizer) or none."),
    click.option("--subject", metavar="TEXT", help="What the final prompt begins with; otherwise the library says."),
    click.option("--negative", is_flag=True, help="Compose a negative prompt too."),
    click.option("--prefix", default="", metavar="TEXT", help="Stands before every final prompt: trigger words."),
    click.option("--suffix", default="", metavar="TEXT", help="Stands after every final prompt."),
]  # fmt: skip


def ranking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of ranking and policy; the command gets them as keywords for `settings_of`."""
    return _decorate(command, _RANKING)


def composing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of the final prompt; the command gets them as keywords for `settings_of`."""
    return _decorate(command, _COMPOSING)


def _decorate(command: Callable[..., Any], options: list[Decorator]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def settings_of(options: dict[str, Any]) -> Settings:
    """Takes what `ranking_options` and `composing_options` gave out of a command's keywords.

    Raises:
        QueryError: a value is out of its range.
    """
    from unprompt.search.policy import Policy
    from unprompt.search.rank_options import RankOptions
    from unprompt.search.settings import NEAR_DUPLICATE, Settings

    collapse = options.pop("collapse")
    ranking = RankOptions(
        kinds=split_names(options.pop("kinds")),
        exclude_kinds=split_names(options.pop("exclude_kinds")) or (),
        namespaces=split_names(options.pop("namespaces")),
        include_terms=options.pop("include"),
        exclude_terms=options.pop("exclude"),
        min_score=options.pop("min_score"),
        min_percentile=options.pop("min_percentile"),
        order=options.pop("order"),
        collapse=NEAR_DUPLICATE if collapse is None else collapse or None,
        diversity=options.pop("diversity"),
    )
    policy = Policy(
        artists=options.pop("artists"),
        forbid=options.pop("forbid"),
        prefix=options.pop("prefix", ""),
        suffix=options.pop("suffix", ""),
    )
    composing = {name: options.pop(name) for name in ("mode", "target", "subject", "negative") if name in options}
    return Settings(ranking=ranking, policy=policy, **composing)


def split_names(names: str | None) -> tuple[str, ...] | None:
    """The distinct names in a comma-separated list, in its order; None stays None."""
    if names is None:
        return None
    return tuple(dict.fromkeys(name for part in names.split(",") if (name := part.strip())))
