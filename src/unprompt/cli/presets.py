"""``unprompt evaluate --preset``: what a published protocol decides of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unprompt.builders.sources import SourceOptions
    from unprompt.evaluation.presets import Preset

DECIDED = {"part": "all", "group_by": "prompt", "keep": "none", "format_": "auto"}
"""Options that a preset decides, with their own defaults, which stand for not being given."""
_FLAGS = {"part": "--part", "group_by": "--group-by", "keep": "--keep-leaks", "format_": "--format"}


def decide(preset: Preset, options: dict[str, Any]) -> None:
    """Sets what the preset decides, and its systems and metrics where none were named.

    Raises:
        click.UsageError: an option contradicts the preset.
    """
    wanted = {
        "part": preset.shown,
        "group_by": preset.grouping,
        "keep": preset.keep,
        "format_": preset.source_format,
    }
    for name, value in wanted.items():
        if options[name] not in (DECIDED[name], value):
            raise click.UsageError(f"--preset {preset.name} decides {_FLAGS[name]} ({value}): leave it out")
        options[name] = value
    options["systems"] = options["systems"] or ",".join(preset.systems)
    if options["metrics"] == "default":
        options["metrics"] = ",".join(preset.metrics)


def source_options(preset: Preset | None) -> SourceOptions:
    """How sources are read: by the preset's filters, or by the reader's own."""
    from unprompt.builders.sources import DiffusionFilters, SourceOptions

    if preset is None:
        return SourceOptions()
    return SourceOptions(diffusion_filters=DiffusionFilters(**preset.filters.to_dict()))


def preset_facts(preset: Preset, specs: Sequence[str]) -> dict[str, Any]:
    """What the results say of a preset: the protocol, whether the data are DiffusionDB's, and published figures."""
    from dataclasses import asdict

    from unprompt.evaluation.presets.preset import is_marked

    genuine = not any(is_marked(spec) for spec in specs)
    published = [asdict(figure) for figure in preset.beside(genuine)]
    return {**preset.to_dict(), "genuine": genuine, "published": published}


def preset_remarks(facts: dict[str, Any]) -> list[str]:
    """The lines below a table: what was published, whether it compares, and what the protocol leaves open."""
    lines = [f"preset {facts['name']}: {facts['about']}"]
    if not facts["genuine"]:
        lines.append("these pictures are marked as NOT DiffusionDB's: nothing here compares with published figures")
    for each in facts["published"]:
        compares = "comparable" if each["comparable"] else "not comparable"
        lines.append(f"published: {each['system']}, {each['metric']} {each['value']:g}; {compares}: {each['reason']}")
    lines += [f"open: {unknown}" for unknown in facts["unknowns"]]
    if facts["more_systems"]:
        lines.append(f"it also had {', '.join(facts['more_systems'])}: name it with --systems if you have the weights")
    return lines
