"""What `ExtensionNet` predicts of a vocabulary's terms, with what does not depend on the prompt computed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unprompt.encoders.bfloat16 import multiplies_bfloat16
from unprompt.encoders.parallel import map_side_by_side
from unprompt.encoders.scripted import scripted
from unprompt.index.contexts import CONTEXT
from unprompt.search.chains import Chain
from unprompt.search.extension_net import ExtensionNet, extended, load_net, relative_lengths
from unprompt.search.rounds import EncodeTexts
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

Predict = Callable[[Chain, NDArray[np.intp]], NDArray[np.float64]]
"""(a,) the cosines with a query that a chain (with an embedding) has once each of some terms (a,) is appended."""

WEIGHTS = Path(__file__).parent / "weights" / "extension_net.safetensors"

ROWS = 512
"""Terms that a core takes at a time. Bits depend on it, so it does not depend on the number of cores."""

SAME = 0.999
"""The least cosine of the probe's embeddings by which an encoder passes for the one that the network learnt from."""

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
        self._layers = tuple(tensor.detach().to(self._dtype) for tensor in tensors)
        self._embeddings, self._lengths = torch.from_numpy(embeddings), torch.from_numpy(lengths)
        self._terms = torch.empty((len(embeddings), net.mix.in_features), dtype=torch.bfloat16)

        @torch.inference_mode()
        def fill(part: slice) -> None:
            within = torch.from_numpy(contexts[part].astype(np.float32))
            self._terms[part] = net.term_part(self._embeddings[part], within, self._lengths[part])

        map_side_by_side(fill, _parts(len(embeddings)))
        self._cosines = scripted(cosines_of, *self._example()) if len(embeddings) else cosines_of

    def of_query(self, query: NDArray[np.float32]) -> Predict:
        """Predicts cosines with a query (D,)."""
        return lambda chain, rows: self.predict(query, chain, rows)

    def predict(self, query: NDArray[np.float32], chain: Chain, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """(a,) the cosines with a query (D,) of a chain (with an embedding) and each of some terms (a,), by rows."""
        assert chain.embedding is not None
        prompt, target = torch.from_numpy(chain.embedding).float(), torch.from_numpy(query).float()
        length = float(max(1, len(chain.text)))
        places = torch.from_numpy(rows)
        with torch.inference_mode():
            context = self._net.context(prompt[None], torch.tensor([length]))[0]
            first, gate = self._net.prompt(context).to(self._dtype), (1 + self._net.gate(context)).to(self._dtype)
            weights = relative_lengths(self._lengths[places], length)

        @torch.inference_mode()
        def found(part: slice) -> Tensor:
            tables = self._terms, self._embeddings, places[part], weights[part]
            return self._cosines(*tables, prompt, target, first, gate, *self._layers)

        cosines = map_side_by_side(found, _parts(len(rows)))
        return torch.cat(cosines).double().numpy() if cosines else np.zeros(0)

    def _example(self) -> tuple[Tensor, ...]:
        """Arguments of `cosines_of`."""
        width, dim = self._terms.shape[1], self._embeddings.shape[1]
        facts = torch.ones(dim), torch.ones(dim), torch.ones(width).to(self._dtype), torch.ones(width).to(self._dtype)
        return self._terms, self._embeddings, torch.zeros(1, dtype=torch.long), torch.ones(1), *facts, *self._layers


def cosines_of(
    terms: Tensor,
    embeddings: Tensor,
    rows: Tensor,
    weights: Tensor,
    prompt: Tensor,
    query: Tensor,
    first: Tensor,
    gate: Tensor,
    mix: Tensor,
    mix_bias: Tensor,
    out: Tensor,
    out_bias: Tensor,
) -> Tensor:
    """(n,) float32, what `ExtensionTable.predict` says of n rows.

    Args:
        terms: (T, H) bfloat16, `ExtensionNet.term_part`.
        embeddings: (T, D) float32.
        rows: (n,) int64.
        weights: (n,) float32, `relative_lengths` of the rows' terms.
        prompt: (D,) float32, the prompt's embedding.
        query: (D,) float32.
        first: (H,), the prompt's share of the first layer.
        gate: (H,)
        mix: (H, H), of the second layer, in the products' dtype, as `first`, `gate` and the others.
        mix_bias: (H,)
        out: (D, H)
        out_bias: (D,)
    """
    hidden = F.gelu(terms.index_select(0, rows).to(first.dtype) + first, approximate="tanh") * gate
    hidden = F.gelu(F.linear(hidden, mix, mix_bias), approximate="tanh")
    shift = F.linear(hidden, out, out_bias).float()
    return torch.mv(extended(embeddings.index_select(0, rows), prompt, weights, shift), query)


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


def _parts(count: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, count, ROWS)]
