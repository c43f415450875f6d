"""``unprompt evaluate``: how good is every system on pictures whose prompts are known?"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unprompt.cli.searching import open_library, search_device_option
from unprompt.cli.settings import split_names

if TYPE_CHECKING:
    from unprompt.builders.sources import SourceOptions
    from unprompt.evaluation.presets import Preset
    from unprompt.evaluation.results import Results
    from unprompt.systems.evaluate import Plan
    from unprompt.types import Source

_OPTIONS: list[Callable[..., Any]] = [
    click.option("--library", "root", required=True, type=click.Path(path_type=Path), metavar="DIR",
                 help="The library that systems search in."),
    click.option("--split", "specs", multiple=True, required=True, metavar="FILE|SOURCE",
                 help="Pictures and their true prompts: a pairs.jsonl, or any source that build takes. "
                      "May be repeated."),
    click.option("--format", "format_", default="auto", show_default=True, metavar="NAME",
                 help="What the source is, as for build."),
    click.option("--systems", metavar="NAME,...",
                 help="neighbours, prompts, rrf; interrogator-fast, interrogator-classic, interrogator-best; composed, "
                      "engine, engine-no-captioner; captioners by name or folder, ofa:NAME, blip:NAME, each also with "
                      "+neighbours behind it. LABEL=SYSTEM gives one another name."),
    click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where the report goes."),
    click.option("--metrics", default="default", show_default=True, metavar="NAME,...",
                 help="Such as sentence-cosine, bleu-4, recall@10; the first ranks the systems. default stands for "
                      "all that can be measured here."),
    click.option("--part", default="all", show_default=True, metavar="PART",
                 help="Split the source, and take its train, dev or test part; all takes everything."),
    click.option("--group-by", default="prompt", show_default=True, metavar="RULE",
                 help="What a split keeps together: prompt (the same words), near (near-duplicate prompts) or artist; "
                      "or random, the thesis's 90/5/5 of pictures."),
    click.option("--limit", type=int, metavar="N", help="A sample of so many pictures, drawn by the seed."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
                 help="Of the sample, a random split, intervals and tests."),
    click.option("--keep-leaks", "keep", is_flag=False, flag_value="all", default="none", metavar="[prompts|all]",
                 help="Keep pictures that the library has; with =prompts those whose prompt it has, but not they "
                      "themselves, so that finding prompts can be measured."),
    click.option("--judge", metavar="ENCODER",
                 help="Measures clipscore: an encoder that had no hand in any answer."),
    click.option("--force-circular", is_flag=True, help="Let it judge what it composed; the table then says so."),
    click.option("--cases", metavar="SYSTEM",
                 help="Whose best and worst cases report.html shows.  [default: the best one's]"),
    click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True, metavar="N",
                 help="Draws behind each interval; tests take ten times as many."),
    click.option("--preset", metavar="NAME",
                 help="A published protocol, on parts of DiffusionDB: thesis-2023 or nyu-2023. It decides filters, "
                      "texts, split and leaks, and metrics and systems unless they are named."),
    click.option("--device", default="cpu", show_default=True, help="Where the networks run: cpu, cuda, cuda:1 ..."),
    search_device_option,
]  # fmt: skip


_KEPT = {
    "none": "left out",
    "prompts": "those by prompt are kept: figures are of prompts that can be found",
    "all": "kept: figures are too good",
}


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_options
def evaluate(root: Path, specs: tuple[str, ...], format_: str, out: Path, **options: Any) -> None:
    """Score systems on pictures whose prompts are known, and write tables, plots and a page of cases.

    Pictures that the library has, by their content or by their prompt, are left out unless --keep-leaks. Each picture
    is encoded once, whatever the number of systems. Encodings, answers and values are kept in the cache folder by the
    content of all that they come from, so a second run computes only what is new.

    In --out: results.json (everything), results.csv, results.md, answers.jsonl, report.html, and three PNG plots.
    """
    from unprompt.cli.presets import preset_facts, source_options
    from unprompt.cli.progress import step_bars
    from unprompt.evaluation.report import write_report
    from unprompt.evaluation.tables import to_terminal
    from unprompt.systems.evaluate import evaluate_library

    options["format_"] = format_
    preset = _preset(options)
    sources = _open(specs, options.pop("format_"), source_options(preset))
    library = open_library(root, options.pop("search_device"))
    plan = _plan(options, preset)
    facts: dict[str, Any] = {"command": ["unprompt", *sys.argv[1:]]}
    facts |= {} if preset is None else {"preset": preset_facts(preset, specs)}
    out.mkdir(parents=True, exist_ok=True)  # raises before hours of work
    with step_bars() as progress:
        evaluation, results = evaluate_library(library, sources, plan, facts=facts, progress=progress)
    write_report(evaluation, results, out, plan.cases)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo("\n".join([to_terminal(results, width), *remarks(results), f"written to {out}"]))


def _preset(options: dict[str, Any]) -> Preset | None:
    """The protocol that was asked for, after it has decided its options."""
    from unprompt.cli.presets import decide
    from unprompt.evaluation.presets import load_preset

    name = options.pop("preset")
    preset = None if name is None else load_preset(name)
    if preset is not None:
        decide(preset, options)
    elif not options["systems"]:
        raise click.UsageError("Missing option '--systems'")
    return preset


def _plan(options: dict[str, Any], preset: Preset | None) -> Plan:
    from unprompt.evaluation.items import Selection
    from unprompt.evaluation.scoring import Statistics
    from unprompt.systems.evaluate import Plan

    chosen = {name: options.pop(name) for name in ("part", "group_by", "limit", "keep")}
    seed, resamples = options.pop("seed"), options.pop("resamples")
    return Plan(
        split_names(options.pop("systems")) or (),
        split_names(options.pop("metrics")) or (),
        Selection(seed=seed, **chosen),
        Statistics(seed=seed, resamples=resamples, permutations=10 * resamples),
        preset=preset,
        **options,
    )


def _open(specs: Sequence[str], format_: str, options: SourceOptions) -> dict[str, Source]:
    """The sources by a short name: that of the folder where a table has a usual name."""
    from unprompt.builders.sources import open_source

    sources: dict[str, Source] = {}
    for spec in specs:
        path = Path(spec)
        name = path.parent.name if path.stem == "pairs" else path.stem
        sources[spec if not name or name in sources else name] = open_source(spec, format_, options)
    return sources


def remarks(results: Results) -> list[str]:
    """What stands below the table: leaks, what was skipped, what could not be measured, how much was encoded."""
    from unprompt.cli.presets import preset_remarks

    leaks, split = results["leaks"], results["split"]
    lines = [
        f"leaks: {leaks['by_prompt']:,} by prompt, {leaks['by_picture']:,} by picture; {_KEPT[leaks['kept']]}",
    ]
    lines += preset_remarks(results["preset"]) if "preset" in results else []
    lines += [f"skipped: {count:,} {reason}" for reason, count in split["skipped"].items()]
    lines += [f"not measured: {name} ({why})" for name, why in results["left_out"].items()]
    for model, counted in results["encodings"].items():
        lines.append(f"encoded by {model}: {counted['encoded_now']:,} pictures now, {counted['pictures']:,} used")
    return lines
