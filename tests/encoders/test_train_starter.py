"""Training of the starter encoder: split, factors, discriminants, objective, figures; on small synthetic data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from unprompt.encoders import starter_backbone
from unprompt.encoders.memory_head import MemoryConfig, MemoryHead
from unprompt.encoders.starter_head import load_head, save_head
from unprompt.encoders.training import build, discriminant, gate, naming, values
from unprompt.encoders.training.build import Recipe, TextSide
from unprompt.encoders.training.curve import draw
from unprompt.encoders.training.data import SETS, Example, load_examples, prompt_group, split_of
from unprompt.encoders.training.evaluate import bootstrap, evaluate, hits_at
from unprompt.encoders.training.factors import factorise
from unprompt.encoders.training.objective import PromptLoss, bank, make_targets
from unprompt.errors import EncoderError, SourceError

DIM = 24
SUBJECTS = ("dog", "house", "portrait", "spaceship")


def text_embeddings(texts: list[str]) -> np.ndarray:
    """A text is the sum of its words' random vectors, of norm 1."""
    rows = []
    for text in texts:
        words = text.lower().replace(",", " ").split()
        rows.append(sum(np.random.default_rng(list(word.encode())).standard_normal(DIM) for word in words))
    rows = np.array(rows)
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def example(subject: str, artist: str, cell: str = "tl", split: str = "train", set: str = SETS[0]) -> Example:
    prompt = f"{subject} by {artist}"
    return Example(set, Path(f"{prompt}.png"), cell, prompt, artist, subject, split, "", "")


@pytest.fixture(scope="module")
def styled() -> tuple[list[Example], torch.Tensor]:
    """60 artists x 4 subjects x 4 crops: subject + artist + noise. One subject of each artist is for testing."""
    generator = np.random.default_rng(0)
    subjects, artists = generator.standard_normal((4, 32)) * 3, generator.standard_normal((60, 32))
    examples, rows = [], []
    for a in range(60):
        for s, subject in enumerate(SUBJECTS):
            for cell in ("tl", "tr", "bl", "br"):
                examples.append(example(subject, f"artist{a}", cell, "test" if a % 4 == s else "train"))
                rows.append(subjects[s] + artists[a] + 0.7 * generator.standard_normal(32))
    return examples, torch.tensor(np.array(rows), dtype=torch.float32)


def test_near_duplicate_prompts_share_group_and_split() -> None:
    assert prompt_group("dog by Albrecht Dürer") == prompt_group("Dog, by albrecht durer")
    assert prompt_group("dog by Dürer") != prompt_group("house by Dürer")
    assert split_of("dog by Henri de Toulouse-Lautrec") == split_of("dog by Henri De Toulouse Lautrec")


def test_split_is_about_80_10_10() -> None:
    splits = [split_of(f"a prompt of number {i}") for i in range(3000)]
    assert splits.count("test") == pytest.approx(300, abs=60)
    assert splits.count("dev") == pytest.approx(300, abs=60)


def write_sets(root: Path) -> None:
    rows = {
        "sd14-artist-grids": {"prompt": "dog by A B", "artist": "A B", "subject": "dog", "layout": "2x2 grid of four"},
        "sd15-artists": {"prompt": "style of A B, woman", "artist": "A B"},
        "sdxl-fashion": {"prompt": "photo of a man, wool coat"},
        "sd1-modifiers": {"prompt": "portrait, by C D", "modifier": "by C D", "subject": "portrait"},
    }
    for name, row in rows.items():
        (root / name).mkdir(parents=True)
        grid = np.zeros((20, 20, 3), dtype=np.uint8)
        grid[:10, 10:] = 50
        grid[10:, :10] = 100
        grid[10:, 10:] = 150
        Image.fromarray(grid).save(root / name / "0.png")
        (root / name / "pairs.jsonl").write_text(json.dumps({"image": "0.png", **row}) + "\n", encoding="utf-8")


def test_load_examples_cuts_grids_and_finds_factors(tmp_path: Path) -> None:
    write_sets(tmp_path)
    examples = load_examples(tmp_path)
    assert [e.cell for e in examples] == ["tl", "tr", "bl", "br", "", "", ""]
    assert [np.asarray(e.open()).mean() for e in examples[:4]] == [0, 50, 100, 150]
    assert examples[4].subject == "woman"
    assert examples[4].fragments() == ("A B", "woman", "style of A B")
    assert examples[6].artist == "C D"
    factors = factorise(examples, torch.arange(7))
    assert factors.entity[0] == factors.entity[4]  # the same artist in two sets
    assert factors.group[0] != factors.group[4]
    assert factors.entity_family[factors.entity[0]].tolist() == [1, 0, 0]


def test_load_examples_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"sd14-artist-grids.*--data"):
        load_examples(tmp_path)
    write_sets(tmp_path)
    (tmp_path / "sdxl-fashion" / "0.png").unlink()
    with pytest.raises(SourceError, match=r"0\.png is missing"):
        load_examples(tmp_path)


def test_hits_at_by_hand() -> None:
    corpus = np.eye(3, dtype=np.float32)
    queries = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]], dtype=np.float32)
    true = np.array([0, 1, 2])
    assert hits_at(queries, corpus, true, k=1).tolist() == [1, 0, 0]
    assert hits_at(queries, corpus, true, k=2).tolist() == [1, 1, 0]


def test_bootstrap_draws_whole_groups() -> None:
    outcomes = np.repeat([0.0, 1.0], 50)
    together = bootstrap(outcomes, [str(i // 25) for i in range(100)])
    alone = bootstrap(outcomes, [str(i) for i in range(100)])
    assert together.value == alone.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_prompt_loss_matches_a_naive_one(styled: tuple[list[Example], torch.Tensor]) -> None:
    examples = styled[0]
    prompts, fragments = bank(examples, ("train",))
    banks = torch.from_numpy(text_embeddings(prompts)), torch.from_numpy(text_embeddings(fragments))
    loss = PromptLoss(make_targets(examples, prompts, fragments, banks), cosine=0.4, fragment=0.2, temperature=0.1)
    rows = torch.tensor([i for i, e in enumerate(examples) if e.split == "train"][:5])
    queries = F.normalize(torch.randn(5, DIM, generator=torch.Generator().manual_seed(1)), dim=1)
    expected = 0.0
    for query, row in zip(queries, rows.tolist(), strict=True):
        to_prompts, to_fragments = banks[0] @ query, banks[1] @ query
        true = prompts.index(examples[row].prompt)
        pieces = [fragments.index(f) for f in examples[row].fragments()]
        expected += float(torch.logsumexp(to_prompts / 0.1, 0) - to_prompts[true] / 0.1 + 0.4 * (1 - to_prompts[true]))
        expected -= 0.2 * float((to_fragments / 0.1).log_softmax(0)[pieces].mean())
    assert loss(queries, rows).item() == pytest.approx(expected / 5, rel=1e-4)


def test_remember_leaves_the_own_prompt_out(styled: tuple[list[Example], torch.Tensor]) -> None:
    examples, x = styled
    rows = torch.tensor([i for i, e in enumerate(examples) if e.split == "train"])
    factors, x = factorise(examples, rows), x[rows]
    head = MemoryHead(MemoryConfig(("pooled",), 32, 4, 3, 60, 16, dim=DIM))
    options, ones = discriminant.Discriminant(width=16, damping=0.1), torch.ones(len(rows))
    means = discriminant.fit_groups(head, x, factors.group[rows], ones, options)
    discriminant.fit_entities(head, x, factors.entity[rows], ones, means, options)
    scores, has_others = discriminant.remember(head, x, factors, rows)
    assert bool(has_others.all())
    with torch.no_grad():
        places = head.place(x, head.groups(x))
    for i in (0, 17, 300):
        entity, own = factors.entity[rows[i]], factors.pairs[rows[i]]
        others = {int(p) for p in factors.pairs[rows[factors.entity[rows] == entity]] if p != own}
        prompts = [F.normalize(places[factors.pairs[rows] == p].mean(0), dim=0) for p in sorted(others)]
        prototype = F.normalize(torch.stack(prompts).sum(0), dim=0)
        assert float(scores[i, entity]) == pytest.approx(float(places[i] @ prototype), abs=1e-5)


def test_additive_values_recover_sums() -> None:
    examples = [example(s, f"artist{a}") for s in SUBJECTS for a in range(20)]
    rows = torch.arange(len(examples))
    factors = factorise(examples, rows)
    generator = torch.Generator().manual_seed(0)
    groups, entities = torch.randn(4, DIM, generator=generator), torch.randn(20, DIM, generator=generator)
    texts = groups[factors.group] + entities[factors.entity]
    of_group, of_entity = values.additive_values(factors, rows, texts)
    assert (of_group[factors.group] + of_entity[factors.entity] - texts).abs().max() < 0.1


@pytest.fixture(scope="module")
def trained(styled: tuple[list[Example], torch.Tensor]) -> MemoryHead:
    examples, x = styled
    logits = torch.randn(len(x), 1000, generator=torch.Generator().manual_seed(0))
    features = {"pooled": x.half().numpy(), "logits": logits.half().numpy()}
    class_rows = torch.randn(1000, 32, generator=torch.Generator().manual_seed(1))
    texts = TextSide(text_embeddings, [f"class{i}" for i in range(1000)], [f"a picture of thing{i}" for i in range(64)])
    recipe = Recipe(
        discriminant=discriminant.Discriminant(width=24, damping=0.1, entity_shrinkage=0.1),
        schedule=values.Schedule(epochs=10, batch_size=64, lr=2e-2),
    )
    watched: list[MemoryHead] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "INPUTS", ("pooled",))
        head, curve = build.train_head(
            examples, features, class_rows, texts, recipe, starter_backbone.PREPROCESSING, watched.append
        )
    assert sum(curve[-5:]) < sum(curve[:5])
    assert len(watched) == 11  # before the first epoch and after each of ten
    return head


def test_trained_head_names_unseen_prompts(trained: MemoryHead, styled: tuple[list[Example], torch.Tensor]) -> None:
    examples, x = styled
    test = [i for i, e in enumerate(examples) if e.split == "test"]
    with torch.no_grad():
        queries = trained({"pooled": x[test], "logits": torch.zeros(len(test), 1000)}).numpy()
    figures = evaluate(examples, queries, text_embeddings)[SETS[0]]
    assert figures["subject"].value > 0.9
    assert figures["recall@10"].value > 0.3  # 10 of 240 prompts by chance: 0.04
    assert figures["recall@10, 4 crops"].value >= figures["recall@10"].value
    assert figures["recall@10"].n == 240


def test_memory_head_survives_its_file(
    trained: MemoryHead, styled: tuple[list[Example], torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "head.safetensors"
    save_head(trained, path)
    loaded, backbone = load_head(path)
    assert backbone == {}
    assert loaded.config == trained.config
    features = {"pooled": styled[1], "logits": torch.zeros(len(styled[1]), 1000)}
    with torch.no_grad():
        assert F.cosine_similarity(loaded(features), trained(features)).min() > 0.99  # float16 against float32


def test_memory_head_refuses_a_broken_configuration() -> None:
    text = MemoryConfig(("pooled",), 32, 4, 3, 60, 16).to_json()
    assert MemoryConfig.from_json(text) == MemoryConfig(("pooled",), 32, 4, 3, 60, 16)
    with pytest.raises(EncoderError, match="not valid"):
        MemoryConfig.from_json(text.replace("entities", "entitles"))


def test_naming_finds_what_a_mixture_of_many_values_hides() -> None:
    """200 names in 24 dimensions: the mean of the three likely ones lies near others, the turned query does not."""
    generator = torch.Generator().manual_seed(0)
    head = MemoryHead(MemoryConfig(("pooled",), 32, 4, 3, 200, 16, dim=DIM, pooled=32)).requires_grad_(False)
    names = F.normalize(torch.randn(200, DIM, generator=generator) + 0.5 * torch.randn(DIM, generator=generator), dim=1)
    groups = torch.randn(4, DIM, generator=generator)
    naming.set_names(head, names, groups)
    shown = torch.randint(200, (50, 3), generator=generator)
    likely = torch.zeros(50, 200).scatter_(1, shown, torch.tensor([0.5, 0.3, 0.2]).expand(50, 3))
    before = F.normalize(likely @ names, dim=1)
    after = head.name(before, likely)

    def found(queries: torch.Tensor) -> float:
        best = (queries @ names.T).topk(3, dim=1).indices
        return float((best[:, :, None] == shown[:, None, :]).any(dim=1).float().mean())

    assert found(after) > found(before) + 0.1
    assert torch.allclose(after.norm(dim=1), torch.ones(50), atol=1e-5)
    assert (head.naming_metric @ (groups - groups.mean(dim=0)).T).abs().max() < 1e-3  # differences of groups are kept


def test_entity_names_are_artists_or_what_follows_the_comma() -> None:
    examples = [example("dog", "A B"), example("dog", "C D"), example("dog", "A B", "tr")]
    examples.append(Example(SETS[2], Path("x.png"), "", "photo of a man, wool coat, belt", "", "", "train", "", ""))
    assert naming.entity_names(examples, torch.arange(4), torch.tensor([1, 0, 1, 2])) == [
        "C D",
        "A B",
        "wool coat, belt",
    ]


def test_group_names_are_subjects_and_none_where_one_of_a_set_is_bare() -> None:
    examples = [example("dog", "A B"), example("house", "A B")]
    examples += [example(subject, "A B", "", set=SETS[1]) for subject in ("", "woman")]
    examples.append(Example(SETS[2], Path("x.png"), "", "photo of a man, wool coat, belt", "", "", "train", "", ""))
    sets = (SETS[0], SETS[0], SETS[1], SETS[1], SETS[2])
    names = naming.group_names(examples, torch.arange(5), torch.tensor([1, 0, 2, 3, 4]), sets)
    assert names == ["house", "dog", "", "", "photo of a man"]


def test_showing_says_what_the_groups_know_and_only_within_their_set() -> None:
    """Queries near wrong names, with groups 0.6 sure: afterwards the sure one is nearest; nameless sets are left."""
    generator = torch.Generator().manual_seed(0)
    head = MemoryHead(MemoryConfig(("pooled",), 32, 6, 3, 5, 16, dim=DIM, pooled=32)).requires_grad_(False)
    names = F.normalize(torch.randn(6, DIM, generator=generator), dim=1)
    sets = (SETS[0],) * 4 + (SETS[1],) * 2
    naming.set_group_names(head, ["dog", "house", "portrait", "spaceship", "", ""], names, sets)
    sure = torch.randint(4, (80,), generator=generator)
    groups = torch.full((80, 6), 0.4 / 3).scatter_(1, sure[:, None], 0.6)
    groups[:, 4:] = 0.0
    before = F.normalize(torch.randn(80, DIM, generator=generator), dim=1)
    after = head.show(before, groups)
    assert ((after @ names[:4].T).argmax(dim=1) == sure).float().mean() > 0.9
    assert ((before @ names[:4].T).argmax(dim=1) == sure).float().mean() < 0.5
    assert (after * before).sum(dim=1).mean() > 0.7
    assert torch.allclose(after.norm(dim=1), torch.ones(80), atol=1e-5)
    nameless = torch.zeros(80, 6).index_fill_(1, torch.tensor([4]), 1.0)
    assert torch.allclose(head.show(before, nameless), before, atol=1e-4)


def test_the_gate_doubts_strange_texture_and_little_else() -> None:
    """Pictures vary along 4 of 16 texture directions; strange ones along the others."""
    generator = torch.Generator().manual_seed(0)
    config = MemoryConfig(("pooled",), 24, 2, 3, 5, 16, dim=DIM, pooled=8, texture=16, usual=4)
    head = MemoryHead(config).requires_grad_(False)
    head.prototypes.copy_(F.normalize(torch.randn(5, 16, generator=generator), dim=1))
    head.projection.copy_(torch.randn(16, 24, generator=generator))
    spread = torch.full((24,), 0.1).index_fill_(0, torch.arange(8, 12), 3.0)
    usual = torch.randn(600, 24, generator=generator) * spread
    strange = usual[:100] + torch.randn(100, 24, generator=generator)
    gate.set_texture(head, usual[:300], torch.arange(300) % 2, torch.ones(300))
    norms = gate.measure_norms(head, usual[300:], [SETS[i % 4] for i in range(300)])
    gate.set_gate(head, [SETS[0], SETS[0]], norms)

    def trust(x: torch.Tensor) -> torch.Tensor:
        groups = head.groups(x)
        return head.trust(x, groups, head.scores(x, groups))

    assert trust(usual[300:]).mean() > 0.75
    assert trust(strange).mean() < 0.1


def test_the_curve_wants_development_figures(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="train with --choose"):
        draw({"loss": [1.0], "dev by epoch": []}, tmp_path / "curve.png")
