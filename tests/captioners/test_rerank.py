"""Reranking by the picture, on the fake encoder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fakes import PALETTE, FakeEncoder
from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.rerank import Caption, rerank


def pictures(encoder: FakeEncoder, *colours: str) -> np.ndarray:
    return encoder.encode_images([Image.new("RGB", (8, 8), PALETTE[colour]) for colour in colours])


def test_the_picture_decides_between_captions() -> None:
    encoder = FakeEncoder()
    written = [Caption("blue", -0.2), Caption("red", -0.9), Caption("green", -0.1)]
    found = rerank(encoder, pictures(encoder, "red", "blue"), [written, written], source="lstm", weight=0.0)
    assert [each[0].prompt for each in found] == ["red", "blue"]
    for row, each in enumerate(found):
        cosines = encoder.encode_texts([candidate.prompt for candidate in each]) @ pictures(encoder, "red", "blue")[row]
        assert [candidate.score for candidate in each] == pytest.approx(cosines.tolist(), abs=1e-6)
        assert sorted(cosines, reverse=True) == cosines.tolist()
        assert [(part.source, part.kind) for candidate in each for part in candidate.parts] == [("lstm", "caption")] * 3


def test_the_captioner_decides_where_its_weight_is_large() -> None:
    encoder = FakeEncoder()
    written = [[Caption("blue", -0.2), Caption("red", -0.9), Caption("green", -0.1)]]
    (found,) = rerank(encoder, pictures(encoder, "red"), written, source="lstm", weight=1000.0)
    assert [each.prompt for each in found] == ["green", "blue", "red"]


def test_weight_is_in_cosines_per_log_probability() -> None:
    encoder = FakeEncoder()
    picture = pictures(encoder, "red")
    red, blue = (encoder.encode_texts(["red", "blue"]) @ picture[0]).tolist()
    written = [[Caption("red", -1.0), Caption("blue", 0.0)]]
    for share, first in ((0.99, "red"), (1.01, "blue")):
        (found,) = rerank(encoder, picture, written, source="lstm", weight=share * (red - blue))
        assert found[0].prompt == first


def test_each_text_is_embedded_once() -> None:
    encoder = FakeEncoder()
    embedded = pictures(encoder, "red", "green")
    rerank(encoder, embedded, [[Caption("red", -1.0), Caption("a", -1.0)], [Caption("red", -2.0)]], source="x")
    assert encoder.texts_encoded == 2


def test_a_prompt_stays_once_with_its_better_score_and_ties_have_a_rule() -> None:
    encoder = FakeEncoder()
    written = [[Caption("red", -5.0), Caption("RED", -1.0), Caption("red", -0.5), Caption("Red", -1.0)]]
    (found,) = rerank(encoder, pictures(encoder, "red"), written, source="x", weight=0.0)
    assert [each.prompt for each in found] == ["red", "RED", "Red"]


def test_numbers_that_do_not_fit() -> None:
    encoder = FakeEncoder()
    with pytest.raises(CaptionerError, match="1 pictures and captions for 2"):
        rerank(encoder, pictures(encoder, "red"), [[], []], source="x")
    with pytest.raises(CaptionerError, match=r"weight -1\.0"):
        rerank(encoder, pictures(encoder, "red"), [[]], source="x", weight=-1.0)
    assert rerank(encoder, pictures(encoder, "red"), [[]], source="x") == [[]]
