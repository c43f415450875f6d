"""What embeds neighbours' prompts for captioners that attend to them."""

from __future__ import annotations

import numpy as np
import pytest

from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.texts import STARTER, STARTER_TEXTS, LazyTexts, texts_fingerprint
from unprompt.encoders.minilm import TextTower

PROMPTS = ["portrait, Film Noir", "a red dog"]


def test_starters_texts_are_those_of_its_tower() -> None:
    """Its picture side is not loaded, and may be trained anew."""
    assert texts_fingerprint(STARTER, "of the whole encoder") == STARTER_TEXTS
    np.testing.assert_array_equal(LazyTexts(STARTER, STARTER_TEXTS, "cpu")(PROMPTS), TextTower.load().encode(PROMPTS))


def test_other_encoders_embed_with_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        fingerprint = "abc"

        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(text)] for text in texts], dtype=np.float32)

    asked = []
    monkeypatch.setattr(
        "unprompt.encoders.registry.load_encoder", lambda name, device: asked.append((name, device)) or Other()
    )
    texts = LazyTexts("other", texts_fingerprint("other", "abc"), "cuda")
    assert not asked
    assert [texts(PROMPTS).tolist() for _ in range(2)] == [[[19.0], [9.0]]] * 2
    assert asked == [("other", "cuda")]


@pytest.mark.parametrize("name", [STARTER, "other"])
def test_another_encoder_than_in_training_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        fingerprint = "abc"

    monkeypatch.setattr("unprompt.encoders.registry.load_encoder", lambda name, device: Other())
    with pytest.raises(CaptionerError, match=f"encoder {name} is not the one the captioner was trained with"):
        LazyTexts(name, "another", "cpu")(PROMPTS)
