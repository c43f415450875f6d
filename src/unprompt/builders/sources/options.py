"""What a caller may say about a source beyond its path."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DiffusionFilters:
    """Which entries of DiffusionDB are left out; every filter is on by default, and off as None (or False).

    Attributes:
        aspect_ratio: width / height that a picture must have, within 1 %.
        skip_blurred: leaves out pictures that Stable Diffusion's own safety filter has blurred (``image_nsfw`` is 2.0).
        prompt_nsfw: largest ``prompt_nsfw`` kept. That score is a classifier's probability, the larger of "toxic" and
            "sexually explicit" (Wang et al., DiffusionDB, 2023, section 2.3); beyond 0.5 it says "rather yes than no".
        min_cfg: smallest guidance scale.
        min_steps: smallest number of sampling steps; pictures of fewer have hardly left the noise.
    """

    aspect_ratio: float | None = 1.0
    skip_blurred: bool = True
    prompt_nsfw: float | None = 0.5
    min_cfg: float | None = 0.0
    min_steps: int | None = 10


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Options of all formats; each reader takes what concerns it.

    Attributes:
        image_column: the column that holds or names the picture, for tables; None to guess.
        prompt_column: the column that holds the prompt, for tables; None to guess.
        embedding_column: the column of picture embeddings, for parquet tables; None to guess.
        text_embedding_column: the column of prompt embeddings, for parquet tables; None to guess.
        diffusion_filters: see `DiffusionFilters`; prompts alone are filtered too where they have a ``prompt_nsfw``.
    """

    image_column: str | None = None
    prompt_column: str | None = None
    diffusion_filters: DiffusionFilters = DiffusionFilters()
    embedding_column: str | None = None
    text_embedding_column: str | None = None
