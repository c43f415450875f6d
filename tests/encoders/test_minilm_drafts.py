from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from unprompt.encoders import minilm, minilm_drafts, scripted
from unprompt.encoders.minilm import TextTower
from unprompt.encoders.minilm_drafts import (
    LEAST_ROWS,
    MOST_ROWS,
    ROWS,
    DraftMiniLM,
    attend,
    forward,
    product,
    transform,
)

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


@pytest.mark.parametrize("lengths", [[1], [5, 3], [40, 24], [40, 25], [200, 97], [256, 64]])
def test_passes_have_few_numbers_of_rows_and_a_text_is_embedded_as_without_more_rows(
    tower: TextTower, monkeypatch: pytest.MonkeyPatch, lengths: list[int]
) -> None:
    if not tower._drafts.rows_stand_alone:
        pytest.skip("on this processor a product's row depends on the others'")
    seen: list[int] = []

    def counted(ids: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(len(ids))
        return forward(ids, *rest)  # type: ignore[arg-type]

    batch = [[7 + i] * length for i, length in enumerate(lengths)]
    monkeypatch.setattr(tower._drafts, "_forward", counted)
    found = tower._drafts.embed(batch)
    assert seen == [max(LEAST_ROWS, -(-sum(lengths) // ROWS) * ROWS)]
    with torch.inference_mode():
        fuller = forward(*tower._drafts._arguments([*batch, [0] * LEAST_ROWS]))[: len(batch)].numpy()
    np.testing.assert_array_equal(found, fuller)


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


def refused(*_: object) -> None:
    raise RuntimeError("not in this build")


def batches(tower: TextTower) -> list[list[list[int]]]:
    return [tower._tokenize(texts) for texts in CALLS]


@pytest.fixture
def compiled(tower: TextTower) -> DraftMiniLM:
    if not (scripted.SUPPORTED and tower._drafts._packed):
        pytest.skip("passes are not compiled on this Python, or with this build of PyTorch")
    return tower._drafts


def test_the_compiled_pass_is_the_eager_one_to_the_bit(tower: TextTower, compiled: DraftMiniLM) -> None:
    assert compiled._forward is not forward
    assert max(sum(map(len, batch)) for batch in batches(tower)) > MOST_ROWS
    with torch.inference_mode():
        for batch in batches(tower):
            arguments = compiled._arguments(batch)
            assert torch.equal(compiled._forward(*arguments), forward(*arguments))


@pytest.mark.parametrize(
    "script", [refused, lambda function: lambda *arguments: function(*arguments) + 1e-7], ids=["fails", "differs"]
)
def test_where_a_pass_cannot_be_compiled_it_is_eager(
    tower: TextTower, compiled: DraftMiniLM, monkeypatch: pytest.MonkeyPatch, script: object
) -> None:
    monkeypatch.setattr(torch.jit, "script", script)
    eager = DraftMiniLM(tower.model)
    assert eager._forward is forward
    assert eager.least_tokens > compiled.least_tokens, "passes that wait for each other had better be few"
    for batch in batches(tower):
        np.testing.assert_array_equal(eager.embed(batch), compiled.embed(batch))


def test_drafts_of_several_threads_at_once_are_those_of_one(drafting: TextTower) -> None:
    expected = [drafting.draft(texts) for texts in CALLS]
    fresh = TextTower(drafting.tokenizer, drafting.model)  # its first draft compiles
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fresh.draft, CALLS * 2))
    for rows, one in zip(found, expected * 2, strict=True):
        np.testing.assert_array_equal(rows, one)


@pytest.mark.usefixtures("compiled")
def test_that_passes_are_compiled_warns_no_user() -> None:
    program = """
import warnings
from unprompt.encoders import minilm
from unprompt.encoders.minilm_drafts import forward
minilm.multiplies_bfloat16 = lambda: True
tower = minilm.TextTower.load()
warnings.simplefilter("error")
tower.draft(["a cat", "a dog"])
print(tower._drafts._forward is not forward)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_without_weights_in_onednns_order_drafts_are_the_same_but_for_rounding(
    tower: TextTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refused)
    plain = DraftMiniLM(tower.model)
    assert not plain._packed
    assert plain._forward is forward
    for batch in batches(tower):
        assert np.linalg.norm(plain.embed(batch) - tower._drafts.embed(batch), axis=1).max() < 0.02


@pytest.mark.parametrize("packed", [True, False])
def test_a_product_is_a_linear_layers(tower: TextTower, packed: bool) -> None:
    torch.manual_seed(0)
    layer, rows = minilm.Layer().requires_grad_(False), torch.randn(70, 384)
    weights = minilm_drafts._in_bfloat16(layer)
    if packed and not tower._drafts._packed:
        pytest.skip("this build of PyTorch does not put weights in oneDNN's order")
    weights = minilm_drafts._in_onednns_order(weights) if packed else weights
    found = product(rows.bfloat16(), weights[0], packed)
    torch.testing.assert_close(found.float(), layer.qkv(rows), atol=0.03, rtol=0.02)


def test_padded_attention_is_attention_a_text_at_a_time() -> None:
    torch.manual_seed(0)
    lengths = [21, 17, 16, 16, 3, 1, 40]
    qkv = torch.randn(sum(lengths), 3 * 384).bfloat16()
    packed = attend(qkv, minilm_drafts._groups(lengths))
    for rows, found in zip(qkv.split(lengths), packed.split(lengths), strict=True):
        q, k, v = rows.float().view(-1, 3, 12, 32).permute(1, 2, 0, 3)
        naive = ((q @ k.transpose(1, 2) / 32**0.5).softmax(dim=-1) @ v).transpose(0, 1).reshape(-1, 384)
        torch.testing.assert_close(found.float(), naive, atol=0.03, rtol=0)


def test_a_long_pass_is_cut_only_where_products_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = minilm_drafts._in_bfloat16(minilm.Layer().requires_grad_(False))
    widths: dict[int, list[int]] = {}

    def counted(x: torch.Tensor, *rest: object) -> torch.Tensor:
        widths.setdefault(x.shape[1], []).append(len(x))
        return product(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(minilm_drafts, "product", counted)
    transform(torch.randn(650, 384), layer, minilm_drafts._groups([50] * 13), packed=False)
    assert widths[384] == [650] * 3
    assert sum(widths[1536]) == 650
    assert LEAST_ROWS <= min(widths[1536]) <= max(widths[1536]) <= MOST_ROWS
