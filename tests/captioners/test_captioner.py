"""A checkpoint as a `Captioner`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from fakes import FakeEncoder
from tiny_captioner import TinyGrid, colour_pairs, tiny_config, tiny_pictures
from unprompt.captioners.captioner import TrainedCaptioner, Writing
from unprompt.captioners.checkpoint import load_checkpoint
from unprompt.captioners.data.neighbours import find_neighbours
from unprompt.captioners.data.pairs import Pair
from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.train import train_captioner
from unprompt.captioners.training.pictures import Pictures, embed_pictures
from unprompt.types import Captioner, Embeddings


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return colour_pairs(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def trained(pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer that is told three neighbours, trained until it names colours."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config("transformer", "neighbours=3", "epochs=12", "batch=8", "patience=12")
    kept, pictures = tiny_pictures(pairs, folder / "cache", config)
    encoder = FakeEncoder()
    neighbours = find_neighbours(kept, embed_pictures(kept, encoder, folder / "cache"), 3, encoder.encode_texts)
    told = Pictures(pictures.cache, pictures.rows, "tiny", neighbours, ("fake", encoder.fingerprint))
    train_captioner("transformer", kept, told, config, folder / "out")
    return folder / "out"


class CountingTexts:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        self.seen += texts
        return FakeEncoder().encode_texts(texts)


@pytest.fixture
def captioner(trained: Path) -> TrainedCaptioner:
    return TrainedCaptioner("mine", load_checkpoint(trained), TinyGrid(), CountingTexts())


def images_of(pairs: Sequence[Pair], count: int) -> list[Image.Image]:
    return [Image.open(pair.picture.path) for pair in pairs[:count] if pair.picture is not None]


def test_it_writes_what_it_learnt(captioner: TrainedCaptioner, pairs: list[Pair]) -> None:
    train = [pair for pair in pairs if pair.split == "train"]
    found = captioner.caption(images_of(train, 40))
    colours = [pair.prompt.split()[1] for pair in train[:40]]
    named = sum(colour in candidates[0].prompt for colour, candidates in zip(colours, found, strict=True))
    assert named >= 24  # one in eight by chance
    for candidates in found:
        assert 1 <= len(candidates) <= 5
        assert len({candidate.prompt for candidate in candidates}) == len(candidates)
        assert [candidate.score for candidate in candidates] == sorted((c.score for c in candidates), reverse=True)
        for candidate in candidates:
            assert candidate.score <= 0
            (part,) = candidate.parts
            assert (part.text, part.source, part.kind) == (candidate.prompt, "captioner:mine", "caption")


def test_it_is_a_captioner_and_batches_change_nothing(captioner: TrainedCaptioner, pairs: list[Pair]) -> None:
    typed: Captioner = captioner
    images = images_of(pairs, 20)
    together = typed.caption(images, num_beams=2, max_tokens=0)
    alone = [typed.caption([image], num_beams=2, max_tokens=0)[0] for image in images]
    assert [[c.prompt for c in each] for each in together] == [[c.prompt for c in each] for each in alone]
    assert typed.caption([], num_beams=2, max_tokens=0) == []


def test_captions_are_as_short_as_asked(captioner: TrainedCaptioner, pairs: list[Pair]) -> None:
    (candidates,) = captioner.caption(images_of(pairs, 1), num_beams=3, max_tokens=2)
    for candidate in candidates:
        assert len(captioner.tokenizer.encode([candidate.prompt], 99)[0]) <= 2 + 2
    with pytest.raises(CaptionerError, match="max_tokens is -1"):
        captioner.caption(images_of(pairs, 1), max_tokens=-1)
    with pytest.raises(CaptionerError, match="num_beams is 0"):
        captioner.caption(images_of(pairs, 1), num_beams=0)


def test_neighbours_are_told_up_to_as_many_as_in_training(captioner: TrainedCaptioner, pairs: list[Pair]) -> None:
    images = images_of(pairs, 3)
    told = [["a red thing, sketch", "a blue thing, photo", "one", "two too many"], [], ["a white thing, photo"]]
    texts = captioner._encode_texts
    assert isinstance(texts, CountingTexts)
    found = captioner.caption(images, neighbours=told)
    assert texts.seen == [*told[0][:3], *told[2]]
    plain = captioner.caption(images)
    scores = [[each[0].score for each in captions] for captions in (found, plain)]
    assert scores[0][0] != scores[1][0]
    assert scores[0][1] == pytest.approx(scores[1][1], abs=1e-5)  # without neighbours is without neighbours
    with pytest.raises(CaptionerError, match="2 lists of neighbours for 3 pictures"):
        captioner.caption(images, neighbours=told[:2])


def test_neighbours_words_are_mixed_into_what_is_written(trained: Path, pairs: list[Pair]) -> None:
    told = [["a red quux"]] * 4
    words = {}
    for share in (0.0, 0.9):
        writing = Writing(neighbour_share=share)
        each = TrainedCaptioner("mine", load_checkpoint(trained), TinyGrid(), CountingTexts(), writing)
        found = each.caption(images_of(pairs, 4), neighbours=told)
        words[share] = sum("quux" in candidate.prompt for candidates in found for candidate in candidates)
        assert each.caption(images_of(pairs, 4)) == each.caption(images_of(pairs, 4), neighbours=[[]] * 4)
    assert words[0.0] == 0
    assert words[0.9] >= 4


def test_parts_that_do_not_fit_are_named(trained: Path, pairs: list[Pair]) -> None:
    with pytest.raises(CaptionerError, match=r"mine was trained on another tiny \(tiny"):
        TrainedCaptioner("mine", load_checkpoint(trained), TinyGrid("other"))
    silent = TrainedCaptioner("mine", load_checkpoint(trained), TinyGrid())
    assert silent.caption(images_of(pairs, 1))
    with pytest.raises(CaptionerError, match="has no text encoder"):
        silent.caption(images_of(pairs, 1), neighbours=[["a prompt"]])
