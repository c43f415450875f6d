"""What `ExtensionNet` predicts of a vocabulary's terms, with what does not depend on the prompt computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unprompt.encoders.bfloat16 import multiplies_bfloat16
from unprompt.encoders.parallel import map_side_by_side
from unprompt.encoders.scripted import scripted
from unprompt.index.contexts import CONTEXT
from unprompt.search.chains import Chain
from unprompt.search.extension_net import ExtensionNet, load_net, shifts
from unprompt.search.rounds import EncodeTexts
from unprompt.search.weighted_mean import Predict, relative_lengths
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

WEIGHTS = Path(__file__).parent / "weights" / "extension_net.safetensors"

ROWS = 512
"""Terms of a product. Bits depend on it, so it does not depend on the number of cores."""

SHARE = 4 * ROWS
"""Terms that a core takes at a time: each time it has to wait for Python's lock."""

SAME = 0.999
"""The least cosine of the probe's embeddings by which an encoder passes for the one that the network learnt from."""

Facts = tuple[Tensor, Tensor, Tensor]
"""A prompt's embedding (D,) float32, and its share of the first layer and gate, (H,) each in the products' dtype."""

Layers = tuple[Tensor, Tensor, Tensor, Tensor]
"""Weights and biases of the second layer, (H, H) and (H,), and of the last, (D, H) and (D,), in the products' dtype."""

_tables: WeakKeyDictionary[Vocabulary, ExtensionTable | None] = WeakKeyDictionary()


class ExtensionTable:
    """The T terms of a vocabulary, ready to be appended. Products are bfloat16 where the processor has units for them.

    Args:
        net: in evaluation mode.
        embeddings: (T, D), of the terms; kept, not copied.
        contexts: (T, D), of the terms in context.
        lengths: (T,) float32, the terms' in characters.
    """

    def __init__(
        self,
        net: ExtensionNet,
        embeddings: Embeddings,
        contexts: NDArray[np.floating[Any]],
        lengths: NDArray[np.float32],
    ) -> None:
        self._net = net
        self._dtype = torch.bfloat16 if multiplies_bfloat16() else torch.float32
        tensors = (net.mix.weight, net.mix.bias, net.out.weight, net.out.bias)
        mix, mix_bias, out, out_bias = (tensor.detach().to(self._dtype) for tensor in tensors)
        self._layers = mix, mix_bias, out, out_bias
        self._lengths = torch.from_numpy(lengths)
        terms = torch.empty((len(embeddings), net.mix.in_features), dtype=torch.bfloat16)
        self._tables = terms, torch.from_numpy(embeddings)

        @torch.inference_mode()
        def fill(part: slice) -> None:
            within = torch.from_numpy(contexts[part].astype(np.float32))
            terms[part] = net.term_part(self._tables[1][part], within, self._lengths[part])

        map_side_by_side(fill, _parts(len(embeddings), ROWS))
        self._cosines = scripted(cosines_of, *self._example()) if len(embeddings) else cosines_of

    def of_query(self, query: NDArray[np.float32]) -> Predict:
        """Predicts cosines with a query (D,)."""
        return lambda chains, rows: self.predict(query, chains, rows)

    def predict(
        self, query: NDArray[np.float32], chains: Sequence[Chain], rows: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """(b, a) the cosines with a query (D,) of b chains (with embeddings) and each of some terms (a,), by rows."""
        target, places = torch.from_numpy(query).float(), torch.from_numpy(rows)
        [(weights, *facts)] = map_side_by_side(self._facts, [(chains, places)])

        @torch.inference_mode()
        def found(work: tuple[int, slice]) -> Tensor:
            chain, part = work
            prompt, first, gate = (fact[chain] for fact in facts)
            arguments = places[part], weights[chain, part], (prompt, first, gate), target
            return self._cosines(self._tables, *arguments, self._layers, ROWS)

        cosines = map_side_by_side(found, product(range(len(chains)), _parts(len(rows), SHARE)))
        flat = torch.cat(cosines) if cosines else torch.zeros(0)
        return flat.view(len(chains), len(rows)).double().numpy()

    @torch.inference_mode()
    def _facts(self, work: tuple[Sequence[Chain], Tensor]) -> tuple[Tensor, ...]:
        """Of b chains the weights of some terms (b, a) beside them, and a row each of what `Facts` says."""
        chains, places = work
        embeddings = np.array([chain.embedding for chain in chains], dtype=np.float32)
        prompts = torch.from_numpy(embeddings.reshape(len(chains), self._tables[1].shape[1]))
        lengths = torch.tensor([float(max(1, len(chain.text))) for chain in chains])
        context = self._net.context(prompts, lengths)
        first, gates = self._net.prompt(context), 1 + self._net.gate(context)
        weights = relative_lengths(self._lengths[places], lengths[:, None])
        return weights, prompts, first.to(self._dtype), gates.to(self._dtype)

    def _example(self) -> tuple[Any, ...]:
        """Arguments of `cosines_of`."""
        terms, embeddings = (table[:1] for table in self._tables)
        facts = torch.ones(embeddings.shape[1]), *torch.ones(2, terms.shape[1]).to(self._dtype)
        return self._tables, torch.zeros(3, dtype=torch.long), torch.ones(3), facts, embeddings[0], self._layers, 2


def cosines_of(
    tables: tuple[Tensor, Tensor],
    rows: Tensor,
    weights: Tensor,
    facts: Facts,
    query: Tensor,
    layers: Layers,
    together: int,
) -> Tensor:
    """(n,) float32, what `ExtensionTable.predict` says of n rows, in words that TorchScript knows.

    Args:
        tables: (T, H) bfloat16, `ExtensionNet.term_part`; (T, D) float32, the terms' embeddings.
        rows: (n,) int64, with n > 0.
        weights: (n,) float32, `relative_lengths` of the rows' terms.
        facts: of the prompt.
        query: (D,) float32.
        layers: the later layers.
        together: rows of a product.
    """
    (terms, embeddings), (prompt, first, gate), (mix, mix_bias, out, out_bias) = tables, facts, layers
    along = torch.dot(prompt, query)
    found: list[Tensor] = []
    for some, weight in zip(torch.split(rows, together), torch.split(weights, together)):  # noqa: B905
        moved = terms.index_select(0, some).to(first.dtype)
        shift = shifts(moved, first, gate, mix, mix_bias, out, out_bias).float()
        # The cosine of `extended`, without making its rows, which are of norm 1.
        embedded, square = embeddings.index_select(0, some), weight.square()
        norms = (1 + 2 * weight * torch.mv(embedded, prompt) + square).clamp_min(1e-12).sqrt()
        added = torch.addcmul(embedded, shift, norms[:, None])
        squares = 1 + 2 * weight * torch.mv(added, prompt) + square * torch.linalg.vector_norm(added, dim=1).square()
        found.append((along + weight * torch.mv(added, query)) / squares.clamp_min(1e-12).sqrt())
    return torch.cat(found)


def table_of(
    vocabulary: Vocabulary, contexts: Callable[[], NDArray[np.floating[Any]] | None], encode_texts: EncodeTexts
) -> ExtensionTable | None:
    """The table of a vocabulary, made when it is first asked for.

    Returns:
        None where the terms' embeddings in context are not known, or the encoder is not the network's.
    """
    if vocabulary not in _tables:
        _tables[vocabulary] = _made(vocabulary, contexts(), encode_texts)
    return _tables[vocabulary]


def _made(
    vocabulary: Vocabulary, contexts: NDArray[np.floating[Any]] | None, encode_texts: EncodeTexts
) -> ExtensionTable | None:
    if contexts is None or not WEIGHTS.exists():
        return None
    net = load_net(WEIGHTS)
    probe = net.probe.numpy()
    if vocabulary.matrix.shape[1:] != probe.shape or float((encode_texts([CONTEXT]) @ probe)[0]) < SAME:
        return None
    return ExtensionTable(net, vocabulary.matrix, contexts, vocabulary.lengths)


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
