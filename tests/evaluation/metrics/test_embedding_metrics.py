"""Sentence cosine, BERTScore and CLIPScore."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fakes import PALETTE, FakeEncoder
from unprompt.encoders.minilm import TextTower
from unprompt.evaluation.metrics.bertscore import OFFLINE, bertscore
from unprompt.evaluation.metrics.clipscore import clipscore
from unprompt.evaluation.metrics.scores import EvaluationError
from unprompt.evaluation.metrics.sentence_cosine import sentence_cosine, sentence_cosine_of_embeddings

# The first picture of the competition: its prompt, and the first rows of the host's sample_submission.csv.
KAGGLE_PROMPT = "hyper realistic photo of very friendly and dystopian crater"
KAGGLE_VALUES = (0.018848453, 0.030189732)


@pytest.fixture(scope="module")
def tower() -> TextTower:
    return TextTower.load()


class TestSentenceCosine:
    def test_embeds_as_the_competition_did(self, tower: TextTower) -> None:
        assert tower.encode([KAGGLE_PROMPT])[0, :2] == pytest.approx(KAGGLE_VALUES, abs=1e-6)

    def test_is_the_mean_cosine(self, tower: TextTower) -> None:
        candidates, references = ["a cat", "a dog", "a cat"], ["a cat", "a kitten", "a kitten"]
        a, b = tower.encode(candidates).astype(np.float64), tower.encode(references).astype(np.float64)
        scores = sentence_cosine(candidates, references)
        assert scores.values == pytest.approx((a * b).sum(axis=1), abs=1e-5)
        assert scores.corpus == pytest.approx(scores.values.mean())
        assert scores.values[0] == pytest.approx(1)
        assert scores.values[2] > scores.values[1]

    def test_texts_are_encoded_once_each(self) -> None:
        encoder = FakeEncoder()
        sentence_cosine(["red", "blue", "red"], ["blue", "red", "green"], encode=encoder.encode_texts)
        assert encoder.texts_encoded == 3

    def test_norms_of_predicted_embeddings_do_not_matter(self) -> None:
        def encode(texts: Sequence[str]) -> np.ndarray:
            return np.eye(384, dtype=np.float32)[[len(text) for text in texts]]

        predicted = np.zeros((2, 384))
        predicted[0, 3], predicted[1, [2, 5]] = 7, (3, 4)
        scores = sentence_cosine_of_embeddings(predicted, ["red", "green"], encode=encode)
        assert scores.values is not None
        assert scores.values.tolist() == pytest.approx([1, 4 / 5])

    @pytest.mark.parametrize(
        ("predicted", "message"),
        [
            (np.ones((1, 383)), r"shape \(1, 383\): give \(1, 384\)"),
            (np.zeros((1, 384)), "0 is zero or not finite"),
            (np.full((1, 384), np.nan), "0 is zero or not finite"),
            (np.ones((2, 384)), "2 candidates and 1 references"),
        ],
    )
    def test_broken_predictions_are_one_line(self, predicted: np.ndarray, message: str) -> None:
        with pytest.raises(EvaluationError, match=message):
            sentence_cosine_of_embeddings(predicted, ["red"])


class TestBertscore:
    def test_offline_model(self) -> None:
        pytest.importorskip("bert_score")
        candidates = ["a painting of a cat", "same text", "", "a b", "stock market report"]
        references = ["an oil picture of a kitten", "same text", "a", " ", "a picture of a kitten"]
        scores = bertscore(candidates, references)
        assert scores.name == f"bertscore ({OFFLINE})"
        assert "not comparable" in scores.note
        assert "layer 5" in scores.note
        assert scores.values is not None
        assert scores.values[[1, 2, 3]].tolist() == pytest.approx([1, 0, 0], abs=1e-5)
        assert scores.values[0] > scores.values[4] + 0.1

    def test_a_model_that_is_not_there_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("bert_score")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(EvaluationError, match="cannot load '/no/such/model'") as caught:
            bertscore(["a"], ["a"], model="/no/such/model", num_layers=3)
        assert "\n" not in str(caught.value)
        with pytest.raises(EvaluationError, match="no best layer of '/no/such/model': give num_layers"):
            bertscore(["a"], ["a"], model="/no/such/model")


class TestClipscore:
    @pytest.fixture
    def judge(self) -> FakeEncoder:
        return FakeEncoder(salt="judge")

    @pytest.fixture
    def pictures(self, judge: FakeEncoder) -> np.ndarray:
        squares = [np.full((8, 8, 3), PALETTE[colour], np.uint8) for colour in ("red", "blue")]
        return judge.encode_images(squares)

    def test_by_hand(self, judge: FakeEncoder, pictures: np.ndarray) -> None:
        scores = clipscore(["red", "red"], ["", ""], pictures=pictures, encoder=judge, prefix="")
        cosines = pictures @ judge.encode_texts(["red"])[0]
        assert scores.values == pytest.approx(2.5 * np.maximum(cosines, 0), abs=1e-6)
        assert scores.name == "clipscore (fakejudge)"

    def test_below_zero_is_zero(self, judge: FakeEncoder, pictures: np.ndarray) -> None:
        opposite = -np.repeat(judge.encode_texts(["red"]), 2, axis=0)
        assert clipscore(["red"] * 2, [""] * 2, pictures=opposite, encoder=judge, prefix="").corpus == 0

    def test_prefix_is_the_papers(self, judge: FakeEncoder, pictures: np.ndarray) -> None:
        ours = clipscore(["red", "blue"], ["", ""], pictures=pictures, encoder=judge)
        texts = judge.encode_texts(["A photo depicts red", "A photo depicts blue"])
        assert ours.values == pytest.approx(2.5 * np.maximum((pictures * texts).sum(axis=1), 0), abs=1e-6)

    @pytest.mark.parametrize("by", ["name", "fingerprint"])
    def test_circularity_is_refused_unless_forced(self, judge: FakeEncoder, pictures: np.ndarray, by: str) -> None:
        texts, composers = ["red", "blue"], {"another", getattr(judge, by)}
        with pytest.raises(EvaluationError, match="'fakejudge' is circular"):
            clipscore(texts, texts, pictures=pictures, encoder=judge, composed_by=composers)
        forced = clipscore(texts, texts, pictures=pictures, encoder=judge, composed_by=composers, force=True)
        assert "CIRCULAR" in forced.note
        free = clipscore(texts, texts, pictures=pictures, encoder=judge, composed_by={"another"})
        assert "CIRCULAR" not in free.note
        assert np.array_equal(free.values, forced.values)

    def test_pictures_of_another_encoder(self, judge: FakeEncoder) -> None:
        with pytest.raises(EvaluationError, match=r"pictures of shape \(1, 5\), 'fakejudge' makes \(1, 32\)"):
            clipscore(["red"], [""], pictures=np.ones((1, 5), np.float32), encoder=judge)
