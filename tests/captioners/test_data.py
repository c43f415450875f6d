"""Pairs, splits, augmented views, batches and neighbours."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder, colour_folder, colour_picture, normalise
from tiny_captioner import TinyGrid
from unprompt.captioners.data.augment import Augmentation
from unprompt.captioners.data.corpus import Corpus, Neighbours
from unprompt.captioners.data.library import library_entries, parse_uri
from unprompt.captioners.data.neighbours import find_neighbours
from unprompt.captioners.data.pairs import Pair, file_numbers, pairs_fingerprint, read_pairs, split_pair
from unprompt.captioners.data.text import plain_words
from unprompt.captioners.features import FeatureCache, View
from unprompt.encoders.training.data import prompt_group, split_of
from unprompt.errors import EncoderError, SourceError
from unprompt.index.library import Library
from unprompt.pictures.coco import CocoSource
from unprompt.types import Entry, Picture, Skipped

PROMPTS = [f"picture number {word} of a {thing}" for word in map(str, range(40)) for thing in ("cat", "house", "sea")]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A cat, 8k; by Greg Rutkowski (1.2)!", "a cat by greg rutkowski"),
        ("it's a 1920s-style photo -- f/1.8", "it's a photo"),
        ("CAFÉ, naïve; 東京", "café naïve 東京"),
        ("under_score, semi-realistic", "under score semi realistic"),
        ("123 !!! 4k", ""),
    ],
)
def test_the_papers_tokenisation(prompt: str, expected: str) -> None:
    assert plain_words(prompt) == expected


def test_near_duplicates_are_in_one_split_and_the_shares_are_right() -> None:
    for split, shares in (("grouped", (0.8, 0.1)), ("grouped-90-5-5", (0.9, 0.05))):
        found = [split_pair(f"{i} cats", None, split) for i in range(4000)]
        counts = Counter(found)
        assert abs(counts["train"] / 4000 - shares[0]) < 0.02
        assert abs(counts["dev"] / 4000 - shares[1]) < 0.02
        assert found == [split_pair(f"CATS, {i}!", None, split) for i in range(4000)]
    assert split_pair("a cat", None, "grouped") == split_of("a cat")


def test_the_thesis_split_is_by_picture() -> None:
    """Its leak: a prompt with many pictures is in all three splits at once."""
    pictures = [Picture(f"/here/{i}.png") for i in range(2000)]
    found = [split_pair("one prompt", picture, "ungrouped-90-5-5") for picture in pictures]
    assert {*found} == {"train", "dev", "test"}
    assert abs(Counter(found)["train"] / 2000 - 0.9) < 0.02
    moved = [split_pair("one prompt", Picture(f"/there/{i}.png"), "ungrouped-90-5-5") for i in range(2000)]
    assert moved == found


def test_smaller_grouped_parts_lie_within_the_larger() -> None:
    for i in range(2000):
        small, large = (split_pair(f"{i} dogs", None, split) for split in ("grouped-90-5-5", "grouped"))
        assert small == "train" or large != "train"


def test_pairs_leave_out_what_cannot_be_learnt_from() -> None:
    entries = [Entry(prompt, Picture(f"{i}.png")) for i, prompt in enumerate(PROMPTS)]
    noise = [Entry("no picture"), Skipped("x", "unreadable"), Entry("  two   spaces ", Picture("y.png"))]
    pairs = read_pairs([*noise, *entries])
    assert [pair.prompt for pair in pairs] == ["two spaces", *PROMPTS]
    assert [pair.row for pair in pairs] == list(range(2, len(PROMPTS) + 3))
    plain = read_pairs(entries, text="plain")
    assert plain[0].prompt == "picture number of a cat"
    assert [pair.split for pair in plain] == [pair.split for pair in pairs[1:]]


def test_a_language_model_reads_each_prompt_once() -> None:
    entries = [Entry(prompt, None if i % 2 else Picture("x.png")) for i, prompt in enumerate(PROMPTS * 2)]
    pairs = read_pairs(entries, pictures=False)
    assert [pair.prompt for pair in pairs] == PROMPTS
    assert all(pair.picture is None for pair in pairs)


def test_too_little_to_learn_from_is_said() -> None:
    with pytest.raises(SourceError, match="0 pairs of picture and prompt leave none for the train split"):
        read_pairs([Entry("no picture")])
    with pytest.raises(SourceError, match="leave none for the"):
        read_pairs([Entry("one", Picture("x.png"))])


def test_fingerprint_follows_the_pairs() -> None:
    pairs = [Pair("a", Picture("x.png"), "train"), Pair("b", Picture("y.png"), "dev")]
    assert pairs_fingerprint(pairs) == pairs_fingerprint(list(pairs)) != pairs_fingerprint(pairs[::-1])


def coco(folder: Path, **changes: object) -> Path:
    facts = {
        "images": [{"id": 7, "file_name": "000007.png"}, {"id": 8, "file_name": "000008.png"}],
        "annotations": [
            {"image_id": 7, "caption": "A red thing.\n"},
            {"image_id": 8, "caption": "A blue thing."},
            {"image_id": 7, "caption": "Something red."},
            {"image_id": 9, "caption": "Nothing."},
        ],
    }
    path = folder / "annotations" / "captions_train2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts | changes))
    return path


def test_coco_captions(tmp_path: Path) -> None:
    path = coco(tmp_path)
    colour_picture(tmp_path / "train2017" / "000007.png", "red")
    found = list(CocoSource(path))
    entries = [entry for entry in found if isinstance(entry, Entry)]
    assert [(entry.prompt, Path(entry.picture.path).name) for entry in entries if entry.picture] == [
        ("A red thing.", "000007.png"),
        ("Something red.", "000007.png"),
    ]
    assert [entry.reason for entry in found if isinstance(entry, Skipped)] == ["missing", "bad row"]
    assert list(CocoSource(path, tmp_path / "train2017")) == found


def test_coco_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no picture '000007\.png' near .*: name the folder"):
        CocoSource(coco(tmp_path))
    with pytest.raises(SourceError, match="is no folder"):
        CocoSource(coco(tmp_path), tmp_path / "nowhere")
    with pytest.raises(SourceError, match="is no COCO captions file"):
        CocoSource(coco(tmp_path, images=[{"name": "x"}]))
    with pytest.raises(SourceError, match=r"cannot read .*none\.json"):
        CocoSource(tmp_path / "none.json")


@pytest.mark.parametrize(
    "picture",
    [
        Picture("/a/b.png"),
        Picture("/a/b#tl.png", cell="br"),
        Picture("/a/b.zip", "c/d.png"),
        Picture("b.ZIP", "d", "tl"),
    ],
)
def test_uris_are_read_back(picture: Picture) -> None:
    assert parse_uri(picture.uri) == picture


def test_a_library_gives_the_entries_it_was_built_from(library_path: Path, entries: list[Entry]) -> None:
    found = list(library_entries(Library.open(library_path)))
    assert [(entry.prompt, entry.picture) for entry in found] == [(entry.prompt, entry.picture) for entry in entries]


def test_views_are_seeded_and_of_the_kinds_asked_for() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    none = Augmentation(rotation=0, flip=0, erasing=0)
    assert (none(pixels, "a") == pixels).all()
    flipped = Augmentation(rotation=0, flip=1, erasing=0)(pixels, "a")
    assert (flipped == pixels[:, ::-1]).all()
    erased = Augmentation(rotation=0, flip=0, erasing=1)
    changed = [(erased(pixels, str(i)) != pixels).any(axis=2).mean() for i in range(30)]
    assert min(changed) > 0.01
    assert max(changed) < 0.25
    turned = Augmentation(rotation=20, flip=0, erasing=0)
    assert (turned(pixels, "a") == turned(pixels, "a")).all()
    assert (turned(pixels, "a") != turned(pixels, "b")).any()
    assert len({none.fingerprint, erased.fingerprint, turned.fingerprint}) == 3
    with pytest.raises(EncoderError, match="out of range"):
        Augmentation(flip=1.5)


def test_an_epoch_has_every_caption_once_and_the_next_another_order() -> None:
    tokens = [[1, *range(3, 4 + i % 7), 2] for i in range(100)]
    corpus = Corpus(tokens, pad=0, seed=5)
    batches = corpus.order(8, 0)
    assert len(batches) == corpus.count(8) == 13
    assert sorted(np.concatenate([rows for rows, _ in batches])) == list(range(100))
    assert [rows.tolist() for rows, _ in batches] == [rows.tolist() for rows, _ in Corpus(tokens, 0, 5).order(8, 0)]
    assert [rows.tolist() for rows, _ in batches] != [rows.tolist() for rows, _ in corpus.order(8, 1)]
    padding = sum(int((corpus.load(batch).tokens == 0).sum()) for batch in batches)
    assert padding < 40  # sorted by length within a window; 250 when they are not
    for batch in batches:
        loaded = corpus.load(batch)
        assert loaded.memory is None
        for row, expected in zip(loaded.tokens.tolist(), batch[0], strict=True):
            assert [token for token in row if token] == tokens[expected]


def test_one_quarter_of_each_grid_makes_an_epoch() -> None:
    pictures = [Picture("grid.png", cell=cell) for cell in ("tl", "tr", "bl", "br")] + [Picture("one.png")]
    files = file_numbers([Pair("x", picture, "train") for picture in pictures])
    corpus = Corpus([[1, 2]] * 5, pad=0, files=files)
    assert corpus.count(8) == 1
    seen = Counter(int(row) for epoch in range(200) for rows, _ in corpus.order(8, epoch) for row in rows)
    assert seen[4] == 200
    assert sum(seen.values()) == 400
    assert min(seen[i] for i in range(4)) > 25


def test_batches_hold_features_views_and_neighbours(tmp_path: Path) -> None:
    views = [View(Picture(str(path))) for path, _ in colour_folder(tmp_path / "pictures", 6)]
    cache = FeatureCache(tmp_path / "c", TinyGrid())
    features = np.stack([cache.rows(views), cache.rows([View(view.picture, 1) for view in views])], axis=1)
    embeddings = normalise(np.random.default_rng(0).standard_normal((4, 5)))
    nearest = np.array([[0, 1], [1, -1], [2, 3], [-1, -1], [3, 0], [0, 2]])
    corpus = Corpus([[1, 2]] * 6, 0, 0, cache, features, Neighbours(embeddings, nearest))
    used = set()
    for epoch in range(10):
        for rows, chosen in corpus.order(4, epoch):
            memory = corpus.load((rows, chosen)).memory
            assert memory is not None
            assert memory.neighbours is not None
            assert memory.neighbour_mask is not None
            assert (memory.grid.numpy() == cache.read(features[rows, chosen])).all()
            assert (memory.neighbour_mask.numpy() == (nearest[rows] >= 0)).all()
            for row, told, mask in zip(rows, memory.neighbours.numpy(), memory.neighbour_mask.numpy(), strict=True):
                assert (told[mask] == embeddings[nearest[row][nearest[row] >= 0]]).all()
            used |= set(chosen.tolist())
    assert used == {0, 1}
    still = Corpus([[1, 2]] * 6, 0, 0, cache, features, shuffled=False)
    assert {view for _, views_ in still.order(4, 3) for view in views_.tolist()} == {0}


def naive_neighbours(pairs: list[Pair], pictures: np.ndarray, k: int) -> list[list[str]]:
    found = []
    for i, pair in enumerate(pairs):
        seen, prompts = {pair.group}, []
        for j in sorted(range(len(pairs)), key=lambda j: -float(pictures[i] @ pictures[j])):
            if pairs[j].split == "train" and pairs[j].group not in seen:
                seen.add(pairs[j].group)
                prompts.append(pairs[j].prompt)
        found.append(prompts[:k])
    return found


@pytest.mark.parametrize("k", [1, 3, 50])
def test_neighbours_are_those_of_a_naive_search(k: int) -> None:
    rng = np.random.default_rng(k)
    words = ["cat", "Cat!", "dog", "house", "sea", "a sea", "sea a", "tree"]
    pairs = [Pair(words[rng.integers(8)], Picture(f"{i}.png"), ("train", "dev")[i % 5 == 0]) for i in range(60)]
    pictures = normalise(rng.standard_normal((60, 6)))
    encoder = FakeEncoder()
    neighbours = find_neighbours(pairs, pictures, k, encoder.encode_texts)
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs if pair.split == "train"))
    assert (neighbours.embeddings == encoder.encode_texts(prompts)).all()
    found = [[prompts[row] for row in each if row >= 0] for each in neighbours.nearest]
    assert found == naive_neighbours(pairs, pictures, k)
    assert all(prompt_group(p) != pair.group for pair, told in zip(pairs, found, strict=True) for p in told)


def test_one_prompt_that_fills_the_neighbourhood_does_not_hide_the_others() -> None:
    pairs = [Pair("crowd", Picture(f"{i}.png"), "train") for i in range(200)]
    pairs += [Pair("far away", Picture("far.png"), "train"), Pair("query", Picture("q.png"), "dev")]
    pictures = normalise(np.array([[1.0, 0.0]] * 200 + [[0.0, 1.0], [1.0, 0.1]]))
    neighbours = find_neighbours(pairs, pictures, 2, FakeEncoder().encode_texts)
    assert neighbours.nearest[-1].tolist() == [0, 1]
