"""Predicted sentence embeddings: head, neighbours, mix, and the files they are written to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fakes import FakeEncoder, colour_folder, normalise, word_vector
from tiny_library import write_library
from unprompt.encoders import load_encoder
from unprompt.encoders.training.data import load_examples
from unprompt.errors import EvaluationError
from unprompt.evaluation.embedding.features import EncoderFeatures, Looked, StarterFeatures, picture_features
from unprompt.evaluation.embedding.head import (
    PACKAGED,
    EmbeddingHead,
    HeadConfig,
    Mixing,
    load_embedding_head,
    save_embedding_head,
)
from unprompt.evaluation.embedding.neighbours import LibraryNeighbours, mix, weighted_mean
from unprompt.evaluation.embedding.output import JOURNAL, Journal, check_writable, write_jsonl, write_kaggle, write_npy
from unprompt.evaluation.embedding.predict import EmbeddingPredictor, apply_head
from unprompt.evaluation.embedding.prompts import read_prompts
from unprompt.evaluation.embedding.train import Corpus, Pairs, Recipe, Source, choose_mixing, fit, train_head
from unprompt.evaluation.metrics.kaggle import read_submission
from unprompt.evaluation.metrics.sentence_cosine import cosines
from unprompt.types import Embeddings

SHARED = Path(__file__).parents[3] / "shared" / "data"
SOURCE = Source("fake", "0" * 64)
SMALL = Recipe(hidden=32, epochs=30, batch=32, warmup=5, input_dropout=0.0, dropout=0.1)


def encode(texts: list[str]) -> Embeddings:
    return normalise(np.array([np.sum([word_vector(word, 384) for word in text.split()], axis=0) for text in texts]))


def clusters(total: int, seed: int, noise: float = 0.6) -> Pairs:
    """Pictures of six kinds, and the embeddings of their prompts, which vary within a kind as the features do not."""
    generator = np.random.default_rng(seed)
    centres, values = np.random.default_rng(0).standard_normal((6, 20)), encode([f"kind {i}" for i in range(6)])
    kind = generator.integers(0, 6, total)
    rows = normalise(centres[kind] + noise * generator.standard_normal((total, 20)))
    return Pairs(Looked(rows, rows), normalise(values[kind] + 0.03 * generator.standard_normal((total, 384))))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_weighted_mean_by_hand() -> None:
    values = np.array([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    found = weighted_mean(np.array([[0.9, 0.9 - 0.1 * np.log(3), -np.inf]]), values, 0.1)
    np.testing.assert_allclose(found, normalise(np.array([[3.0, 1.0]])), atol=1e-6)


def test_weighted_mean_needs_a_neighbour() -> None:
    with pytest.raises(EvaluationError, match="no neighbour"):
        weighted_mean(np.array([[-np.inf]]), np.ones((1, 1, 2)), 0.1)


def test_mix_ends_at_its_parts() -> None:
    head, near = normalise(np.eye(3)[:2]), normalise(np.eye(3)[1:])
    np.testing.assert_array_equal(mix(head, near, 0.0), head)
    np.testing.assert_array_equal(mix(head, near, 1.0), near)
    np.testing.assert_allclose(mix(head, near, 0.5), normalise(head + near), atol=1e-7)


def test_a_head_learns_what_pictures_say_of_prompts() -> None:
    seen, unseen = clusters(300, 1), clusters(100, 2)
    head, curve = train_head(seen.looked.features, seen.targets, SOURCE, SMALL)
    said = apply_head(head, unseen.looked)
    constant = np.repeat(seen.targets.mean(axis=0, keepdims=True), 100, axis=0)
    assert curve[-1] < 0.5 * curve[0]
    assert cosines(said, unseen.targets).mean() > cosines(constant, unseen.targets).mean() + 0.1
    np.testing.assert_allclose(np.linalg.norm(said, axis=1), 1.0, atol=1e-5)


def test_training_depends_on_the_seed_alone() -> None:
    seen = clusters(80, 1)
    recipe = replace(SMALL, epochs=2)
    first, second, third = (
        train_head(seen.looked.features, seen.targets, SOURCE, r)[0].out.weight
        for r in (recipe, recipe, replace(recipe, seed=1))
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_the_mixing_is_the_best_of_all_that_is_tried() -> None:
    seen, unseen = clusters(200, 1), clusters(60, 2)
    head, _ = train_head(seen.looked.features, seen.targets, SOURCE, SMALL)
    corpus = Corpus(seen.looked.embeddings, seen.targets)
    mixing, figures = choose_mixing(head, corpus, unseen.looked, unseen.targets)
    near = corpus.regress(unseen.looked.embeddings, mixing.k, mixing.temperature)
    said = apply_head(head, unseen.looked)
    found = float(cosines(mix(said, near, mixing.weight), unseen.targets).mean())
    assert found == pytest.approx(figures["mix"], abs=1e-9)
    assert figures["mix"] >= max(figures["head"], figures["neighbours"])
    for weight in (0.0, 0.3, 0.7, 1.0):
        assert cosines(mix(said, near, weight), unseen.targets).mean() <= figures["mix"] + 1e-12


def test_exact_neighbours_against_a_loop() -> None:
    seen, unseen = clusters(150, 3), clusters(300, 4)
    corpus = Corpus(seen.looked.embeddings, seen.targets)
    found = corpus.regress(unseen.looked.embeddings, 7, 0.05)
    for row in (0, 127, 128, 299):
        cosine = seen.looked.embeddings @ unseen.looked.embeddings[row]
        nearest = np.argsort(-cosine)[:7]
        weights = np.exp(cosine[nearest].astype(np.float64) / 0.05)
        np.testing.assert_allclose(found[row], normalise(weights[None] @ seen.targets[nearest])[0], atol=1e-5)


def test_a_head_is_read_as_it_was_written(tmp_path: Path) -> None:
    seen = clusters(50, 1)
    report = fit(seen, clusters(20, 2), SOURCE, replace(SMALL, epochs=2), tmp_path / "a.safetensors")
    head = load_embedding_head(tmp_path / "a.safetensors")
    assert head.config.mixing == Mixing(**report["mixing"])
    assert report["pictures"] == {"train": 50, "dev": 20}
    save_embedding_head(head, tmp_path / "b.safetensors", head.config.mixing)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    for threads in (1, 3):
        torch.set_num_threads(threads)
        fit(clusters(300, 1), clusters(20, 2), SOURCE, replace(SMALL, epochs=2, hidden=256), tmp_path / str(threads))
    torch.set_num_threads(1)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes()


def test_bad_heads_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "torn").write_bytes(b"abc")
    head = EmbeddingHead(HeadConfig("fake", "0" * 64, (), 4, 3))
    save_embedding_head(head, tmp_path / "head", Mixing())
    other = HeadConfig("fake", "0" * 64, (), 5, 3)
    head.config = other
    save_embedding_head(head, tmp_path / "unfit", Mixing())
    for name, says in (("none", "cannot read"), ("torn", "cannot read"), ("unfit", "does not fit")):
        with pytest.raises(EvaluationError, match=says) as raised:
            load_embedding_head(tmp_path / name)
        assert "\n" not in str(raised.value)
    for text in ("[]", "{}", '{"format": "unprompt-embedding-head/1", "hidden": 3}'):
        with pytest.raises(EvaluationError, match="train it again"):
            HeadConfig.from_json(text)


@pytest.mark.parametrize("values", [(0, 0.1, 0.5), (1, 0.0, 0.5), (1, 0.1, 1.5), (1, float("nan"), 0.5)])
def test_mixing_out_of_range(values: tuple[int, float, float]) -> None:
    with pytest.raises(EvaluationError, match="use 1 or more, above 0, and 0 to 1"):
        Mixing(*values)


def test_too_little_to_learn_from(tmp_path: Path) -> None:
    one = clusters(1, 1)
    with pytest.raises(EvaluationError, match="2 pairs or more"):
        train_head(one.looked.features, one.targets, SOURCE)
    none = Pairs(Looked(np.empty((0, 20), np.float32), np.empty((0, 20), np.float32)), np.empty((0, 384), np.float32))
    with pytest.raises(EvaluationError, match="no development pictures"):
        fit(clusters(9, 1), none, SOURCE, replace(SMALL, epochs=1), tmp_path / "head")


def test_neighbours_of_a_library(tmp_path: Path) -> None:
    pairs = colour_folder(tmp_path / "pictures", 16)
    encoder = FakeEncoder()
    library = write_library(tmp_path / "library", encoder, pairs)
    query = encoder.encode_images([np.asarray(Image.open(pairs[3][0]).resize((8, 8), Image.Resampling.BOX))])
    found = LibraryNeighbours(library, encode)(query, 100, 0.02)
    records = library.records(range(16))
    cosine = (
        np.concatenate([encoder.encode_images([encoder.preprocess(Image.open(r.image))]) for r in records]) @ query[0]
    )
    weights = np.exp(cosine.astype(np.float64) / 0.02)
    np.testing.assert_allclose(found, normalise(weights[None] @ encode([r.prompt for r in records])), atol=2e-3)
    nearest = LibraryNeighbours(library, encode)(query, 1, 0.02)
    np.testing.assert_allclose(nearest, encode([records[int(cosine.argmax())].prompt]), atol=1e-6)


def test_stored_sentence_embeddings_are_those_of_the_prompts(tmp_path: Path) -> None:
    encoder = FakeEncoder(dim=384)
    pairs = colour_folder(tmp_path / "pictures", 8)
    library = write_library(tmp_path / "library", encoder, pairs)
    query = encoder.encode_images([encoder.preprocess(Image.open(pairs[0][0]))])
    neighbours = LibraryNeighbours(library, encoder.encode_texts)
    encoded = neighbours(query, 5, 0.1)
    neighbours._stored = True  # as with the starter, whose text side is the sentence encoder
    np.testing.assert_allclose(neighbours(query, 5, 0.1), encoded, atol=2e-3)


def test_a_library_without_pictures_has_no_neighbours(tmp_path: Path) -> None:
    library = write_library(tmp_path / "library", FakeEncoder(), prompts={"a cat": 1})
    with pytest.raises(EvaluationError, match="has no pictures"):
        LibraryNeighbours(library, encode)


def test_the_predictor_mixes_head_and_neighbours(tmp_path: Path) -> None:
    pairs, encoder = colour_folder(tmp_path / "pictures", 16), FakeEncoder()
    library = write_library(tmp_path / "library", encoder, pairs)
    head = EmbeddingHead(HeadConfig("fake", encoder.fingerprint, (), 32, 8, Mixing(5, 0.05, 0.3))).eval()
    images = [Image.open(path) for path, _ in pairs[:3]]
    by = {
        source: EmbeddingPredictor(encoder, source, head=head, library=library, encode=encode)(images)
        for source in ("head", "neighbours", "mix")
    }
    np.testing.assert_allclose(by["mix"], mix(by["head"], by["neighbours"], 0.3), atol=1e-6)
    assert encoder.images_encoded == 16 + 3 * 3
    with pytest.raises(EvaluationError, match="other weights"):
        EmbeddingPredictor(FakeEncoder(salt="2"), "head", head=head)
    with pytest.raises(EvaluationError, match="needs a head"):
        EmbeddingPredictor(encoder, "mix", library=library)
    with pytest.raises(EvaluationError, match="needs the pictures of a library"):
        EmbeddingPredictor(encoder, "mix", head=head)
    with pytest.raises(EvaluationError, match="reads the starter's features"):
        picture_features(encoder, ("pooled",))


def test_the_packaged_head_reads_what_the_starter_sees() -> None:
    encoder = load_encoder("starter")
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 255, (90, 120, 3), dtype=np.uint8)) for _ in range(5)]
    features = picture_features(encoder)
    assert isinstance(features, StarterFeatures)
    looked = features(images)
    np.testing.assert_allclose(looked.embeddings, encoder.encode_images(images), atol=1e-5)
    head = load_embedding_head()
    assert PACKAGED.stat().st_size <= 5e6
    assert (head.config.fingerprint, head.config.inputs) == (features.fingerprint, features.inputs)
    assert apply_head(head, looked).shape == (5, 384)
    assert isinstance(picture_features(encoder, ()), EncoderFeatures)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_the_packaged_head_is_nearer_to_unseen_prompts_than_one_constant() -> None:
    unseen = [e for e in load_examples(SHARED) if e.split == "dev"]
    chosen = unseen[::120][:16]
    encoder = load_encoder("starter")
    said = EmbeddingPredictor(encoder, "head", head=load_embedding_head())([e.open() for e in chosen])
    targets = encoder.encode_texts([e.prompt for e in chosen])
    constant = encoder.encode_texts(sorted({e.prompt for e in unseen})[::40]).mean(axis=0, keepdims=True)
    assert cosines(said, targets).mean() > cosines(np.repeat(constant, 16, axis=0), targets).mean() + 0.1


def test_formats(tmp_path: Path) -> None:
    rows = normalise(np.random.default_rng(0).standard_normal((2, 384)))
    names = ["in/b.png", "in/a.png"]
    write_kaggle(tmp_path / "submission.csv", names, rows)
    read = read_submission(tmp_path / "submission.csv")
    assert read.ids == ("a", "b")
    np.testing.assert_array_equal(read.embeddings.astype(np.float32), rows[::-1])
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[0] == "imgId_eId,val"
    assert [line.split(",")[0] for line in (lines[1], lines[384], lines[385])] == ["a_0", "a_383", "b_0"]
    write_npy(tmp_path / "rows.npy", names, rows)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy", allow_pickle=False), rows)
    assert (tmp_path / "rows.npy.txt").read_text().splitlines() == names
    write_jsonl(tmp_path / "rows.jsonl", names, rows)
    parsed = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [each["image"] for each in parsed] == names
    np.testing.assert_array_equal(np.array([each["embedding"] for each in parsed], dtype=np.float32), rows)


def test_a_journal_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    out, rows = tmp_path / "out.csv", normalise(np.random.default_rng(0).standard_normal((3, 384)))
    journal = Journal(out, {"head": "x"})
    journal.add(["a", "b"], rows[:2])
    journal.close()
    path = tmp_path / f"out.csv{JOURNAL}"
    path.write_bytes(path.read_bytes() + b'{"image": "c", "embedding": [0.1, 0.')
    again = Journal(out, {"head": "x"})
    assert sorted(again.known) == ["a", "b"]
    again.add(["c"], rows[2:])
    again.close()
    last = Journal(out, {"head": "x"})
    np.testing.assert_array_equal(np.stack([last.known[name] for name in "abc"]), rows)
    last.close()
    other = Journal(out, {"head": "y"})
    assert other.known == {}
    other.delete()
    assert not path.exists()


def test_what_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    for format_, path, names, says in (
        ("csv", tmp_path / "x", ["a.png"], "unknown format 'csv'"),
        ("npy", tmp_path, ["a.png"], "is a folder"),
        ("kaggle", tmp_path / "x", ["a/x.png", "b/x.jpg"], "have one id, 'x'"),
    ):
        with pytest.raises(EvaluationError, match=says):
            check_writable(path, format_, names)
    check_writable(tmp_path / "x", "npy", ["a/x.png", "b/x.jpg"])


def test_prompts_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('image,prompt,score\nx.png,"a cat, by me",0.5\n')
    lines = [{"image": "x", "prompt": "a"}, {"image": "y", "final": {"prompt": "b"}}]
    lines.append({"image": "z", "captions": [{"prompt": "c"}, {"prompt": "d"}]})
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert read_prompts(tmp_path / "a.csv") == {"x.png": "a cat, by me"}
    assert read_prompts(tmp_path / "b.jsonl") == {"x": "a", "y": "b", "z": "c"}
    for name, text, says in (
        ("c.csv", "image,words\nx,y\n", "no image and prompt"),
        ("d.jsonl", '{"image": "x", "prompt": "a"}\n{"image": "x", "prompt": "b"}\n', "line 2: picture 'x'"),
        ("e.jsonl", "not json\n", "cannot be read"),
        ("f.jsonl", "", "holds no prompts"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(EvaluationError, match=says):
            read_prompts(tmp_path / name)
