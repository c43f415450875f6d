"""``nyu-2023``: zero-shot and trained systems on DiffusionDB pairs, scored by sentence cosine."""

from __future__ import annotations

from unprompt.evaluation.presets.preset import Filters, Preset, Published

_ZERO_SHOT = "same metric, but the figure is of the pictures that Kaggle's competition kept to itself"
_TRAINED = f"{_ZERO_SHOT}; neither the pairs it was trained on nor its weights are known"

NYU_2023 = Preset(
    name="nyu-2023",
    about="A comparison of 2023, by sentence cosine, of a bridge from CLIP to GPT-2, CLIP Interrogator and OFA.",
    filters=Filters(),
    text="as-is",
    max_tokens=None,
    picture_size=None,
    split_rule="by-prompt",
    shown="test",
    keep="none",
    metrics=("sentence-cosine",),
    systems=("bridge", "interrogator-best"),
    more_systems=("ofa:NAME",),
    published=(
        Published("CLIP Interrogator", "sentence-cosine", 0.458, False, _ZERO_SHOT),
        Published("OFA", "sentence-cosine", 0.426, False, _ZERO_SHOT),
        Published("CLIP, bridge, GPT-2, trained on COCO", "sentence-cosine", 0.157, False, _TRAINED),
        Published(
            "CLIP, bridge, GPT-2, trained on 1,000 pairs of DiffusionDB", "sentence-cosine", 0.063, False, _TRAINED
        ),
    ),
    unknowns=(
        "which pairs were held out: here the test split by prompt, which no system trained with that split has seen",
        "no filter is stated: none is applied",
    ),
)
