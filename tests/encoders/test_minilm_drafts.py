from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from unprompt.encoders import minilm, minilm_drafts
from unprompt.encoders.minilm import TextTower
from unprompt.encoders.minilm_drafts import LEAST_ROWS, MOST_ROWS, DraftLayer, Product

TEXTS = [
    "portrait of an old sailor, oil on canvas, dramatic light",
    "",
    "Ünïcödé, 東京の夜, Привет, 🎨🖌️, \u202e rtl \u0000 nul",
    "trending on artstation, " * 100,
    "word " * 253,
    "(masterpiece:1.2), [[blurry]], <lora:x:0.8>",
    "a cat",
    *(f"{'very ' * (i * 5 % 60)}good picture number {i}" for i in range(24)),
]
CALLS = [TEXTS, TEXTS[:1], TEXTS[1:2], TEXTS[5:13], TEXTS[7:], TEXTS[3:5] * 3]


@pytest.fixture(scope="module")
def tower() -> TextTower:
    return TextTower.load()


@pytest.fixture
def drafting(tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> TextTower:
    """A tower that drafts whatever this processor is; without AMX, bfloat16 is slow but the same arithmetic."""
    monkeypatch.setattr(minilm, "multiplies_bfloat16", lambda: True)
    return tower


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_drafts_are_near_the_embeddings(drafting: TextTower) -> None:
    exact, drafts = drafting.encode(TEXTS), drafting.draft(TEXTS)
    assert drafts.dtype == np.float32
    assert drafts.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(drafts, axis=1), 1, atol=1e-5)
    errors = np.linalg.norm(drafts - exact, axis=1)
    assert errors.max() < 0.02
    assert errors.min() > 1e-5, "these are no drafts"
    assert drafting.draft([]).shape == (0, 384)


@pytest.mark.usefixtures("threads")
def test_the_number_of_cores_does_not_show_in_drafts(drafting: TextTower) -> None:
    found = []
    for cores in (1, 2, 4):
        torch.set_num_threads(cores)
        found.append([drafting.draft(texts) for texts in CALLS])
    for rows in found[1:]:
        assert all(np.array_equal(one, other) for one, other in zip(found[0], rows, strict=True))


def test_the_texts_beside_it_do_not_show_in_a_draft(drafting: TextTower) -> None:
    if not drafting._drafts.rows_stand_alone:
        pytest.skip("on this processor a product's row depends on the others'")
    together = drafting.draft(TEXTS)
    alone = np.concatenate([drafting.draft([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.usefixtures("threads")
def test_where_rows_do_not_stand_alone_texts_are_divided_alike_for_any_number_of_cores(
    drafting: TextTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided = []
    monkeypatch.setitem(drafting._drafts.__dict__, "rows_stand_alone", False)
    monkeypatch.setattr(minilm, "_embed_in", lambda found, ids, embed: divided.append(found))
    for cores in (1, 2, 4):
        torch.set_num_threads(cores)
        drafting.draft(TEXTS)
    assert divided[0] == divided[1] == divided[2]
    assert len(divided[0]) > 1


def test_without_units_for_it_drafts_are_the_embeddings(tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(minilm_drafts, "DraftMiniLM", lambda _: pytest.fail("a copy was made"))
    np.testing.assert_array_equal(tower.draft(TEXTS[:8]), tower.encode(TEXTS[:8]))


def test_without_weights_in_onednns_order_products_are_the_same_but_for_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    layer, rows = torch.nn.Linear(384, 96).requires_grad_(False), torch.randn(70, 384)
    expected = layer(rows)
    ordered = Product(layer)(rows.bfloat16())

    def refused(*_: object) -> None:
        raise RuntimeError("not in this build")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refused)
    plain = Product(layer)
    assert not plain._packed
    for product in (ordered, plain(rows.bfloat16())):
        torch.testing.assert_close(product.float(), expected, atol=0.03, rtol=0.02)


def test_padded_attention_is_attention_a_text_at_a_time() -> None:
    torch.manual_seed(0)
    layer = DraftLayer(minilm.Layer().requires_grad_(False))
    lengths = [21, 17, 16, 16, 3, 1, 40]
    qkv = torch.randn(sum(lengths), 3 * 384).bfloat16()
    packed = layer._attend(qkv, minilm_drafts._groups(lengths))
    for rows, found in zip(qkv.split(lengths), packed.split(lengths), strict=True):
        q, k, v = rows.float().view(-1, 3, 12, 32).permute(1, 2, 0, 3)
        naive = ((q @ k.transpose(1, 2) / 32**0.5).softmax(dim=-1) @ v).transpose(0, 1).reshape(-1, 384)
        torch.testing.assert_close(found.float(), naive, atol=0.03, rtol=0)


def test_a_long_pass_is_cut_only_where_products_are_wide() -> None:
    torch.manual_seed(0)
    layer = DraftLayer(minilm.Layer().requires_grad_(False))
    widths: list[int] = []
    down = layer.down
    layer.down = lambda x: widths.append(len(x)) or down(x)  # type: ignore[assignment, func-returns-value]
    lengths = [50] * 13
    layer(torch.randn(650, 384), minilm_drafts._groups(lengths))
    assert sum(widths) == 650
    assert LEAST_ROWS <= min(widths) <= max(widths) <= MOST_ROWS
