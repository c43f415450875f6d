"""``thesis-2023``: captioners trained on DiffusionDB, scored by n-grams and BERTScore."""

from __future__ import annotations

from unprompt.evaluation.presets.preset import Filters, Preset, Published

_BLEU = "same filters and words; its random draw, and the BLEU order and smoothing behind the figure, are not known"
_METEOR = "same filters and words; its random draw and METEOR version are not known"
_BERT = "the original's language model is not known, and another one's values do not compare"


def _figures(system: str, bleu: float, meteor: float, bertscore: float) -> tuple[Published, ...]:
    return (
        Published(system, "bleu-thesis-4", bleu, False, _BLEU),
        Published(system, "meteor", meteor, False, _METEOR),
        Published(system, "bertscore", bertscore, False, _BERT),
    )


THESIS_2023 = Preset(
    name="thesis-2023",
    about="A thesis of 2023 that trains CNN+LSTM and CNN+Transformer captioners on DiffusionDB.",
    filters=Filters(aspect_ratio=1.0, skip_blurred=True, prompt_nsfw=0.5, min_cfg=0.0, min_steps=10),
    text="plain",
    max_tokens=30,
    picture_size=224,
    split_rule="random-90-5-5",
    shown="test",
    keep="prompts",
    metrics=("bleu-thesis-1", "bleu-thesis-2", "bleu-thesis-3", "bleu-thesis-4", "meteor", "bertscore"),
    systems=("lstm", "transformer"),
    published=(*_figures("CNN+LSTM", 1.1, 0.081, 0.441), *_figures("CNN+Transformer", 5.0, 0.141, 0.516)),
    unknowns=(
        "the threshold of prompt_nsfw: 0.5 is this project's",
        "the random split is of pictures, so a prompt can be in training and test at once: figures flatter training",
        "METEOR and BERTScore are on a scale to 100 in the original, on one to 1 here",
    ),
)
