"""What a protocol consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from unprompt.errors import EvaluationError
from unprompt.evaluation.splits import split_at_random, split_by_prompt
from unprompt.pictures.thesis_words import thesis_words

SplitRule = Literal["random-90-5-5", "by-prompt"]
Text = Literal["plain", "as-is"]

MARKER = "NOT-DIFFUSIONDB.txt"
"""A file of this name beside parts in DiffusionDB's format says that they are not DiffusionDB's."""

_BLURRED = 2.0
_RATIO_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries of DiffusionDB take part; None (or False) asks nothing. What an entry does not state, passes.

    The names are those of the reader's own filters, so that ``to_dict`` can be handed to it.

    Attributes:
        aspect_ratio: width / height, within 1 %.
        skip_blurred: leaves out pictures that Stable Diffusion's safety filter blurred (``image_nsfw`` is 2).
        prompt_nsfw: largest ``prompt_nsfw``, 0 to 1.
        min_cfg: smallest guidance scale.
        min_steps: smallest number of sampling steps.
    """

    aspect_ratio: float | None = None
    skip_blurred: bool = False
    prompt_nsfw: float | None = None
    min_cfg: float | None = None
    min_steps: int | None = None

    def keeps(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an entry with this metadata (the keys of `METADATA_KEYS`) takes part."""
        return self.why_not(metadata) == ""

    def why_not(self, metadata: Mapping[str, Any]) -> str:
        """What keeps an entry out, such as "steps", or "" for one that takes part."""
        width, height = metadata.get("width"), metadata.get("height")
        off_ratio = (
            self.aspect_ratio is not None
            and bool(width and height)
            and abs(float(width or 0) / float(height or 1) / self.aspect_ratio - 1) > _RATIO_TOLERANCE
        )
        faults = {
            "cfg": self.min_cfg is not None and metadata.get("cfg", self.min_cfg) < self.min_cfg,
            "steps": self.min_steps is not None and metadata.get("steps", self.min_steps) < self.min_steps,
            "image_nsfw": self.skip_blurred and metadata.get("image_nsfw") == _BLURRED,
            "prompt_nsfw": self.prompt_nsfw is not None and metadata.get("prompt_nsfw", 0.0) > self.prompt_nsfw,
            "aspect_ratio": off_ratio,
        }
        return next((name for name, bad in faults.items() if bad), "")

    def to_dict(self) -> dict[str, Any]:
        """The filters by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Published:
    """A figure that others published.

    Attributes:
        system: the system as they name it.
        metric: the metric of this project that is nearest, by its registered name.
        value: the figure, in that metric's unit.
        comparable: whether a run of the preset on DiffusionDB may stand beside it without more words.
        reason: what is the same, and what is not.
    """

    system: str
    metric: str
    value: float
    comparable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Preset:
    """A published protocol: which pictures, which texts, which split, which metrics, and what was found.

    Attributes:
        name: what ``--preset`` takes.
        about: whose protocol it is, in one sentence.
        filters: which entries take part.
        text: "plain" (words in lower case without punctuation and numbers) or "as-is".
        max_tokens: prompts and answers are cut to so many words; None for whole ones.
        picture_size: side in pixels at which the original looked at pictures; encoders here resize to their own.
        split_rule: how pairs are split.
        shown: the split whose figures are reported.
        keep: which of the pictures that the library knows are kept, as `Selection` names it: "prompts" where the
            original split pictures, so that a prompt may be on both sides.
        metrics: names as `load_metric` takes them.
        systems: what was compared, by this project's names, as far as it runs without weights of others.
        more_systems: what was compared too, and needs weights that the user names.
        published: their figures.
        unknowns: what the publication leaves open, and what was decided.
    """

    name: str
    about: str
    filters: Filters
    text: Text
    max_tokens: int | None
    picture_size: int | None
    split_rule: SplitRule
    shown: str
    keep: Literal["none", "prompts"]
    metrics: tuple[str, ...]
    systems: tuple[str, ...]
    published: tuple[Published, ...]
    more_systems: tuple[str, ...] = ()
    unknowns: tuple[str, ...] = ()
    source_format: str = "diffusiondb"

    @property
    def grouping(self) -> str:
        """The split rule as `Selection` names it."""
        return {"random-90-5-5": "random", "by-prompt": "prompt"}[self.split_rule]

    def keeps(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an entry takes part; see `Filters`."""
        return self.filters.keeps(metadata)

    def normalise(self, text: str) -> str:
        """A prompt or an answer as the metrics see it.

        >>> from unprompt.evaluation.presets import load_preset
        >>> load_preset("thesis-2023").normalise("A cat, 8k; by Greg Rutkowski")
        'a cat by greg rutkowski'
        """
        words = thesis_words(text) if self.text == "plain" else text.split()
        if self.text == "as-is" and self.max_tokens is None:
            return text
        return " ".join(words[: self.max_tokens])

    def split(self, ids: Sequence[str], prompts: Sequence[str], seed: int = 0) -> list[str]:
        """The split of N pairs, "train", "dev" or "test" each.

        Args:
            ids: N different ids of pictures.
            prompts: their prompts.
            seed: of the random split; a split by prompt has none.

        Raises:
            EvaluationError: the lengths differ, or an id is there twice.
        """
        if len(ids) != len(prompts):
            raise EvaluationError(f"{len(ids)} ids and {len(prompts)} prompts: give one prompt a picture")
        return split_by_prompt(prompts) if self.split_rule == "by-prompt" else split_at_random(ids, seed)

    def beside(self, genuine: bool) -> tuple[Published, ...]:
        """The published figures as they may stand beside a run: none is comparable when the data are not DiffusionDB's.

        Args:
            genuine: whether the run was on DiffusionDB; see `is_marked`.
        """
        if genuine:
            return self.published
        reason = "these pictures are not DiffusionDB's"
        return tuple(Published(p.system, p.metric, p.value, False, reason) for p in self.published)

    def to_dict(self) -> dict[str, Any]:
        """The protocol as JSON, for a report."""
        return asdict(self)


def is_marked(source: str | Path) -> bool:
    """Whether parts in DiffusionDB's format are marked as not DiffusionDB's, at `source` or up to two folders above."""
    path = Path(source)
    return any((folder / MARKER).is_file() for folder in (path, *list(path.parents)[:2]))
