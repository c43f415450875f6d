"""Against the reference's own layers, logits and answers; see `parity_reference` for how they are made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unprompt.captioners.decode import DecodeConfig, Hypothesis, allowed, greedy
from unprompt.captioners.decode_beam import beam_search
from unprompt.captioners.interface import State
from unprompt.captioners.ofa import checkpoint
from unprompt.captioners.ofa.model import OfaModel
from unprompt.captioners.ofa.tokenizer import OfaTokenizer

VARIABLE = "UNPROMPT_OFA_REFERENCE"
LONGEST = 41
"""Tokens of the reference's answers, the end counted."""
TOLERANCE = 2e-5
"""Of the largest absolute value: layers differ by the order of summation only."""


def variants() -> Iterator[Path]:
    folder = os.environ.get(VARIABLE)
    if folder:
        yield from sorted(path.parent for path in Path(folder).glob("*/answers.json"))


pytestmark = pytest.mark.skipif(
    not list(variants()), reason=f"{VARIABLE} names no folder that parity_reference.py wrote under modelscope 1.40.2"
)


@pytest.fixture(params=list(variants()), ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    return load_case(request.param)


@cache
def load_case(folder: Path) -> SimpleNamespace:
    """All that one variant's tests compare."""
    facts = json.loads((folder / "answers.json").read_text())
    tensors = load_file(folder / "activations.safetensors")
    model = checkpoint.load_model(folder, checkpoint.read_config(folder))
    return SimpleNamespace(folder=folder, model=model, tensors=tensors, facts=facts, tokenizer=OfaTokenizer(folder))


def ours(model: OfaModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    modules = {"trunk": model.encoder.embed_images}
    modules |= {f"encoder.{i}": layer for i, layer in enumerate(model.encoder.layers)}
    modules |= {f"decoder.{i}": layer for i, layer in enumerate(model.decoder.layers)}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, out: seen.update({name: out[0] if isinstance(out, tuple) else out})

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    seen["logits"] = model(tensors["pictures"], tensors["questions"], tensors["tokens"])
    for hook in hooks:
        hook.remove()
    encoding = model.encode(tensors["pictures"], tensors["questions"])
    return seen | {"states": encoding.states, "positions": encoding.positions}


@torch.no_grad()
def test_every_layer_and_the_logits_agree(case: SimpleNamespace, record_property: Any) -> None:
    found = ours(case.model, case.tensors)
    assert set(found) == set(case.tensors) - {"pictures", "questions", "tokens"}
    for name, tensor in found.items():
        reference = case.tensors[name]
        difference = float((tensor - reference).abs().max())
        record_property(name, difference)
        print(f"{case.folder.name:14} {name:12} {difference:.1e} of {float(reference.abs().max()):.1f}")
        assert difference <= TOLERANCE * float(reference.abs().max()), name


@torch.no_grad()
def test_the_cached_steps_give_the_reference_s_logits(case: SimpleNamespace) -> None:
    tensors, model = case.tensors, case.model
    state = model.start(model.encode(tensors["pictures"], tensors["questions"]))
    for place in range(tensors["tokens"].shape[1]):
        logits, state = model.step(state, tensors["tokens"][:, place])
        torch.testing.assert_close(logits, tensors["logits"][:, place], rtol=0, atol=1e-4)


def rules(beams: int) -> DecodeConfig:
    return DecodeConfig(
        begin=0, end=2, forbidden=(1,), max_tokens=LONGEST, min_tokens=1, num_beams=beams, no_repeat_ngram=3
    )


def start(case: SimpleNamespace, rows: slice = slice(None)) -> State:
    state: State = case.model.start(case.model.encode(case.tensors["pictures"][rows], case.tensors["questions"][rows]))
    return state


def first_to_end(model: OfaModel, state: State, config: DecodeConfig) -> list[tuple[tuple[int, ...], float]]:
    """The reference's search, for one picture: the first ``num_beams`` answers that end, by their mean score."""
    beams, size = [(0.0, ())], config.num_beams
    ended: list[tuple[tuple[int, ...], float]] = []
    tokens = torch.tensor([config.begin])
    while len(ended) < size:
        logits, state = model.step(state, tokens)
        written = torch.tensor([text for _, text in beams], dtype=torch.long).view(len(beams), -1)
        totals = allowed(logits, written, config) + torch.tensor([total for total, _ in beams])[:, None]
        values, places = totals.flatten().topk(2 * size)
        parents, chosen = (places // logits.shape[1]).tolist(), (places % logits.shape[1]).tolist()
        grown = []
        for rank, (total, parent, token) in enumerate(zip(values.tolist(), parents, chosen, strict=True)):
            text = (*beams[parent][1], token)
            if token != config.end:
                grown.append((total, text, parent))
            elif rank < size:
                ended.append((text, total / len(text)))
        beams = [(total, text) for total, text, _ in grown[:size]]
        state = model.reorder(state, torch.tensor([parent for _, _, parent in grown[:size]]))
        tokens = torch.tensor([text[-1] for _, text in beams])
        assert len(beams[0][1]) < LONGEST
    return sorted(ended[:size], key=lambda each: -each[1])


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 5])
def test_answers_are_the_reference_s(case: SimpleNamespace, beams: int) -> None:
    for row, reference in enumerate(case.facts["beams"][str(beams)]):
        found = first_to_end(case.model, start(case, slice(row, row + 1)), rules(beams))
        assert [list(text) for text, _ in found] == [text for text, _ in reference]
        assert [score for _, score in found] == pytest.approx([score for _, score in reference], abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 5])
def test_our_search_finds_the_reference_s_best_answers(case: SimpleNamespace, beams: int) -> None:
    found = beam_search(case.model, start(case), rules(beams))
    for row, reference in zip(found, case.facts["beams"][str(beams)], strict=True):
        scores = {tuple(tokens): score for tokens, score in reference}
        assert tokens_of(row[0]) == tuple(reference[0][0])
        # Where more than five have ended at the last step, the reference keeps the first and we the best.
        missing = scores.keys() - {tokens_of(each) for each in row}
        added = [each.score for each in row if tokens_of(each) not in scores]
        assert len(missing) == len(added) < beams
        assert not added or max(scores[tokens] for tokens in missing) < min(added)
    if beams == 1:
        assert greedy(case.model, start(case), rules(1)) == found


def tokens_of(hypothesis: Hypothesis) -> tuple[int, ...]:
    return (*hypothesis.tokens, 2) if hypothesis.finished else hypothesis.tokens


def test_parameters_have_the_reference_s_names_and_shapes(case: SimpleNamespace) -> None:
    assert {name: list(value.shape) for name, value in case.model.state_dict().items()} == case.facts["parameters"]


def test_safetensors_hold_the_same_model(case: SimpleNamespace) -> None:
    both = {}
    for name in checkpoint.WEIGHTS:
        state = checkpoint._official(checkpoint._read_weights(case.folder / name))
        checkpoint._tie(state, case.model.config, case.folder)
        both[name] = state
    first, second = both.values()
    assert set(first) == set(second) == set(case.model.state_dict())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tokens_are_the_reference_s(case: SimpleNamespace) -> None:
    assert len(case.tokenizer) == case.model.config.vocab_size
    assert [case.tokenizer.encode(text) for text in case.facts["texts"]] == case.facts["questions"]
    answers = [[tokens for tokens, _ in row] for row in case.facts["beams"]["5"]]
    # The reference puts spaces around codes and bins, and tidies those before punctuation.
    for row, texts in zip(answers, case.facts["decoded"], strict=True):
        assert [plain(text) for text in case.tokenizer.decode(row)] == [plain(text) for text in texts]


def plain(text: str) -> str:
    return "".join(text.split())
