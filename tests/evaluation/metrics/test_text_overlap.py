"""BLEU, ROUGE-L, CIDEr and METEOR on numbers worked by hand, and against the libraries' own calls."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unprompt.captioners.data.text import plain_words
from unprompt.evaluation.metrics import bleu as bleu_module
from unprompt.evaluation.metrics import meteor as meteor_module
from unprompt.evaluation.metrics.bleu import bleu
from unprompt.evaluation.metrics.bleu_thesis import bleu_thesis
from unprompt.evaluation.metrics.cider import cider
from unprompt.evaluation.metrics.meteor import java_command, meteor, meteor_java, meteor_nltk
from unprompt.evaluation.metrics.rouge import rouge_l
from unprompt.evaluation.metrics.scores import EvaluationError
from unprompt.evaluation.metrics.texts import words
from unprompt.pictures.thesis_words import thesis_words

CANDIDATES = [
    "portrait of a cat, oil on canvas",
    "a dog by Monet",
    "",
    "8k, 8k, 8k",
    "castle at night, highly detailed",
]
REFERENCES = [
    "a portrait of a cat, oil painting on canvas",
    "dog in a field by Claude Monet",
    "a house",
    "a car, 8k",
    "a castle at night, trending on artstation",
]
TEXTS = st.lists(st.sampled_from(["a", "cat", "dog", "by", "Monet", "8k", "oil"]), max_size=7).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


class TestBleu:
    def setup_method(self) -> None:
        pytest.importorskip("sacrebleu")

    @pytest.mark.parametrize(
        ("order", "value"), [(1, 4 / 5), (2, (4 / 5 * 3 / 4) ** 0.5), (4, (4 / 5 * 3 / 4 * 2 / 3 / 2) ** 0.25)]
    )
    def test_by_hand(self, order: int, value: float) -> None:
        scores = bleu(["a b c d e"], ["a b c d f"], order=order)
        assert scores.values is None
        assert scores.name == f"bleu-{order}"
        assert scores.corpus == pytest.approx(100 * value)

    def test_brevity_penalty(self) -> None:
        assert bleu(["a b"], ["a b c d"], order=1).corpus == pytest.approx(100 * math.exp(1 - 4 / 2))

    @given(PAIRS)
    def test_summed_items_are_the_corpus(self, pairs: list[tuple[str, str]]) -> None:
        import sacrebleu

        candidates, references = zip(*pairs, strict=True)
        theirs = sacrebleu.corpus_bleu(list(candidates), [list(references)]).score
        assert bleu(candidates, references).corpus == pytest.approx(theirs, abs=1e-9)

    @pytest.mark.parametrize("order", [1, 2, 3, 4])
    @given(data=st.data())
    def test_many_corpora_at_once_are_sacrebleus_to_the_digit(self, order: int, data: st.DataObject) -> None:
        from sacrebleu.metrics import BLEU

        total = st.lists(st.integers(0, 50), min_size=order, max_size=order)
        rows = data.draw(st.lists(st.tuples(total, total, st.integers(0, 60), st.integers(1, 60)), min_size=1))
        rows = [([min(pair) for pair in zip(f, t, strict=True)], t, s, r) for f, t, s, r in rows]
        theirs = [
            BLEU.compute_bleu(list(f), list(t), s, r, smooth_method="exp", max_ngram_order=order).score
            for f, t, s, r in rows
        ]
        sums = np.array([[*f, *t, s, r] for f, t, s, r in rows], dtype=np.float64)
        assert bleu_module.from_counts(sums, order).tolist() == theirs

    def test_note_is_the_signature(self) -> None:
        assert "tok:13a" in bleu(CANDIDATES, REFERENCES).note

    @pytest.mark.parametrize("order", [0, 5])
    def test_order_out_of_range(self, order: int) -> None:
        with pytest.raises(EvaluationError, match=f"order {order}: use 1 to 4"):
            bleu(["a"], ["a"], order=order)


class TestThesisBleu:
    def setup_method(self) -> None:
        pytest.importorskip("nltk")

    def test_tokenisation(self) -> None:
        assert thesis_words("A Cat, 8k; by Greg Rutkowski (1.2)! it's 1920s") == [
            *["a", "cat", "by", "greg", "rutkowski", "it's"]
        ]

    @given(st.text(max_size=40))
    def test_tokenisation_is_that_of_captioners_of_its_kind(self, text: str) -> None:
        assert " ".join(thesis_words(text)) == plain_words(text)

    def test_case_punctuation_and_numbers_do_not_count(self) -> None:
        scores = bleu_thesis(["A CAT; by Monet!"], ["a cat, 8k by monet"])
        assert scores.corpus == pytest.approx(100)

    @pytest.mark.filterwarnings("ignore::UserWarning")
    @pytest.mark.parametrize("order", [1, 2, 3, 4])
    @given(pairs=PAIRS)
    def test_is_what_nltk_computes_for_a_corpus(self, order: int, pairs: list[tuple[str, str]]) -> None:
        from nltk.translate.bleu_score import corpus_bleu

        said = [thesis_words(candidate) for candidate, _ in pairs]
        meant = [[thesis_words(reference)] for _, reference in pairs]
        theirs = 100 * corpus_bleu(meant, said, weights=(1 / order,) * order)
        assert bleu_thesis(*zip(*pairs, strict=True), order=order).corpus == pytest.approx(theirs, abs=1e-9)


class TestRougeL:
    def setup_method(self) -> None:
        pytest.importorskip("rouge_score")

    def test_by_hand(self) -> None:
        # The longest common subsequence is "a c d": precision 3/4, recall 3/5.
        scores = rouge_l(["A, b c d", "x"], ["a c d e f", "y"])
        assert scores.values is not None
        assert scores.values.tolist() == pytest.approx([2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5), 0])
        assert scores.corpus == pytest.approx(1 / 3)

    def test_empty(self) -> None:
        assert rouge_l(["", "a"], ["a", ""]).corpus == 0


class TestCider:
    def setup_method(self) -> None:
        pytest.importorskip("pycocoevalcap")

    def test_by_hand(self) -> None:
        # Equal texts have cosine 1 for every n-gram length that they have; nothing in common gives 0.
        scores = cider(["One two, three four!", "five six seven", "x"], ["one two three four", "five six seven", "y"])
        assert scores.values is not None
        assert scores.values.tolist() == pytest.approx([10, 7.5, 0])
        assert scores.corpus == pytest.approx(17.5 / 3)

    def test_what_is_in_every_reference_weighs_nothing(self) -> None:
        assert cider(["cat", "cat"], ["cat", "cat"]).corpus == 0

    def test_no_words_at_all(self) -> None:
        assert cider(["a", "b"], ["", "!"]).corpus == 0

    def test_words(self) -> None:
        assert words("Black-and-white, 8K Café") == ["black", "and", "white", "8k", "café"]


class TestMeteor:
    @pytest.fixture
    def program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Stands for METEOR: answers SCORE with the candidate, and EVAL by the code that it is given."""

        def write(code: str) -> None:
            script = tmp_path / "program.py"
            script.write_text(
                "import sys\n"
                "scored = 0\n"
                "for line in sys.stdin:\n"
                "    verb, *rest = line.rstrip().split(' ||| ')\n"
                "    counts = rest[-1]\n"
                "    if verb == 'SCORE':\n"
                "        print(counts, flush=True)\n"
                "        continue\n"
                "    scored += 1\n" + textwrap.indent(code, "    ") + "\n    print('of all', flush=True)\n"
            )
            monkeypatch.setattr(meteor_module, "java_command", lambda: [sys.executable, str(script)])

        return write

    @pytest.mark.skipif(java_command() is None, reason="Java or pycocoevalcap's METEOR jar is not installed")
    def test_java(self) -> None:
        pairs = [
            ("naïve café", "naïve café"),
            ("a cat on a mat", "the cat sat on the mat"),
            ("", "a dog"),
            ("portrait of a woman,\noil painting", "portrait of women, oil paintings"),
            ("naïve café", "naïve café"),
            ("\udcff cat", " "),
        ]
        scores = meteor(*zip(*pairs, strict=True))
        assert scores.name == "meteor-java"
        assert scores.values is not None
        # What the program prints when it is run by hand on files of these lines.
        assert scores.values.tolist() == pytest.approx([1, 0.24242424, 0, 0.82624942, 1, 0])
        assert scores.corpus == pytest.approx(scores.values.mean())

    @pytest.mark.skipif(java_command() is None, reason="Java or pycocoevalcap's METEOR jar is not installed")
    def test_what_separates_requests_may_stand_in_a_text(self) -> None:
        scores = meteor(["a ||| b c", "a|||b", "|||"], ["a ||| b d", "a|||b c", "x"])
        assert scores.values is not None
        # What the program prints when it is run by hand on files of these lines.
        assert scores.values.tolist() == pytest.approx([0.45916991395712337, 0.47245778928064136, 0.0], abs=1e-15)

    def test_one_process_serves_all_calls(self, program: Callable[[str], None]) -> None:
        """Which answers by the length of the candidate and how many pairs it has scored."""
        program("print(f'{len(counts) / 10 + 100 * scored}')")
        found = [meteor_java(texts, ["x"] * len(texts)).values for texts in (["ccc", "a", "bb", "a"], ["dddd"])]
        assert [values.tolist() for values in found if values is not None] == [[300.3, 100.1, 200.2, 100.1], [400.4]]

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ("print('Out of memory', file=sys.stderr, flush=True); sys.exit(1)", "Out of memory"),
            ("print('Error: no counts')", "Error: no counts"),
            ("sys.exit()", "nothing"),
        ],
    )
    def test_a_program_that_fails_is_one_line(self, answer: str, said: str, program: Callable[[str], None]) -> None:
        program(f"if scored == 2: {answer}\nprint(0.5)")
        for _ in range(2):  # another is started after one that failed
            with pytest.raises(EvaluationError, match=f"scored 1 of 2 pairs, it said '{said}'") as caught:
                meteor_java(["a", "b"], ["c", "d"])
            assert "\n" not in str(caught.value)

    def test_a_program_that_is_not_there_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(meteor_module, "java_command", lambda: [str(tmp_path / "java")])
        with pytest.raises(EvaluationError, match=r"METEOR cannot be started .*: check Java"):
            meteor_java(["a"], ["b"])

    def test_nothing_installed_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(meteor_module, "java_command", lambda: None)
        monkeypatch.setattr(meteor_module, "_wordnet_is_there", lambda: False)
        for function, message in [
            (meteor, "needs Java and pycocoevalcap, or nltk"),
            (meteor_java, "needs Java on the PATH"),
            (meteor_nltk, "needs nltk and its WordNet data"),
        ]:
            with pytest.raises(EvaluationError, match=message) as caught:
                function(["a"], ["a"])
            assert "\n" not in str(caught.value)

    def test_no_java_on_the_path(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert java_command() is None

    def test_nltk_by_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("nltk")
        # Equal texts need no WordNet: one chunk of four matches, penalty 0.5 * (1/4)^3.
        monkeypatch.setattr(meteor_module, "java_command", lambda: None)
        monkeypatch.setattr(meteor_module, "_wordnet_is_there", lambda: True)
        scores = meteor(["A cat by Monet", ""], ["a cat by monet", "a"])
        assert scores.name == "meteor-nltk"
        assert scores.values is not None
        assert scores.values.tolist() == pytest.approx([1 - 0.5 / 64, 0])


@pytest.mark.parametrize("metric", [bleu, bleu_thesis, rouge_l, cider, meteor])
def test_lengths_must_agree(metric: object) -> None:
    with pytest.raises(EvaluationError, match="2 candidates and 1 references"):
        metric(["a", "b"], ["a"])  # type: ignore[operator]
    with pytest.raises(EvaluationError, match="nothing to score"):
        metric([], [])  # type: ignore[operator]


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(EvaluationError, match=r"bleu needs sacrebleu: pip install 'unprompt\[evaluation\]'"):
        bleu(["a"], ["a"])


def test_subsets_of_a_corpus_metric() -> None:
    pytest.importorskip("sacrebleu")
    whole, rows = bleu(CANDIDATES, REFERENCES, order=2), [4, 0]
    part = bleu([CANDIDATES[i] for i in rows], [REFERENCES[i] for i in rows], order=2)
    assert whole.take(rows).corpus == pytest.approx(part.corpus)
    mask = np.isin(np.arange(len(whole)), rows)
    assert whole.take(mask).corpus == pytest.approx(part.corpus)
