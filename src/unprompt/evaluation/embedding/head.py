"""The learnt head: features of a picture in, the sentence embedding of its prompt out; and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.errors import EvaluationError
from unprompt.evaluation.metrics.sentence_cosine import DIM

HEAD_FORMAT = "unprompt-embedding-head/1"
PACKAGED = Path(__file__).parent / "weights" / "starter.safetensors"
LIMIT = 6.0
"""Standardised features are cut off at so many deviations: float16 statistics of odd pictures have long tails."""
_FLOAT32 = ("mean", "scale")


@dataclass(frozen=True, slots=True)
class Mixing:
    """How neighbours are averaged and mixed with the head, as chosen on a development split.

    Attributes:
        k: neighbours, 1 or more.
        temperature: of the softmax over their cosines, above 0.
        weight: the neighbours' share of the mix, 0 to 1.
    """

    k: int = 100
    temperature: float = 0.1
    weight: float = 0.5

    def __post_init__(self) -> None:
        if self.k < 1 or not self.temperature > 0 or not 0 <= self.weight <= 1:
            raise EvaluationError(
                f"mixing {self.k} neighbours at temperature {self.temperature} and weight {self.weight}: "
                "use 1 or more, above 0, and 0 to 1"
            )


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """What a head reads, and how it is mixed with neighbours.

    Attributes:
        encoder: the encoder's name.
        fingerprint: of what makes the features: the encoder's own, or that of the starter's backbone.
        inputs: raw features of the starter's backbone; empty for the encoder's picture embedding.
        input_dim: width of the features.
        hidden: width of the hidden layer.
        mixing: see there.
    """

    encoder: str
    fingerprint: str
    inputs: tuple[str, ...]
    input_dim: int
    hidden: int
    mixing: Mixing = Mixing()

    def to_json(self) -> str:
        """As JSON, with the format's name."""
        return json.dumps({"format": HEAD_FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> HeadConfig:
        """The inverse of `to_json`.

        Raises:
            EvaluationError: it is of another format, or a field is missing or unknown.
        """
        try:
            values: Mapping[str, Any] = json.loads(text)
            fields = dict(values)
            if fields.pop("format", None) != HEAD_FORMAT:
                raise EvaluationError(f"the head is not of format {HEAD_FORMAT}: train it again with embed-train")
            fields["inputs"] = tuple(fields["inputs"])
            fields["mixing"] = Mixing(**fields["mixing"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise EvaluationError(f"the head's configuration is damaged ({error}): train it again") from None


class EmbeddingHead(nn.Module):
    """Standardised features -> one hidden layer -> (N, 384)."""

    def __init__(self, config: HeadConfig, *, input_dropout: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(config.input_dim))
        self.register_buffer("scale", torch.ones(config.input_dim))
        self.hidden = nn.Linear(config.input_dim, config.hidden)
        self.out = nn.Linear(config.hidden, DIM)
        self.input_dropout = nn.Dropout(input_dropout)
        self.dropout = nn.Dropout(dropout)

    def standardise(self, x: Tensor) -> Tensor:
        """(N, F) at mean 0 and deviation 1, cut off at `LIMIT`."""
        return ((x - self.mean) * self.scale).clamp(-LIMIT, LIMIT)

    def forward(self, x: Tensor) -> Tensor:
        """(N, F) raw features -> (N, 384) rows of norm 1."""
        return self.predict(self.standardise(x))

    def predict(self, x: Tensor) -> Tensor:
        """(N, F) standardised features -> (N, 384) rows of norm 1."""
        hidden = F.gelu(self.hidden(self.input_dropout(x)))  # (N, H)
        return F.normalize(self.out(self.dropout(hidden)), dim=1)


def save_embedding_head(head: EmbeddingHead, path: Path, mixing: Mixing) -> None:
    """Writes a head as float16 safetensors, its statistics as float32.

    Raises:
        OSError: the file cannot be written; what was there is as it was.
    """
    tensors = {name: t if name in _FLOAT32 else t.half() for name, t in head.state_dict().items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file(contiguous, temporary, metadata={"config": replace(head.config, mixing=mixing).to_json()})
    temporary.replace(path)


def load_embedding_head(path: Path = PACKAGED) -> EmbeddingHead:
    """Reads a head in float32, ready for inference.

    Raises:
        EvaluationError: the file is missing, no head, or its tensors do not fit its configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("config", "{}")
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise EvaluationError(f"cannot read the head {path} ({reason}): give a file that embed-train wrote") from None
    with torch.device("meta"):
        head = EmbeddingHead(HeadConfig.from_json(text))
    try:
        head.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise EvaluationError(f"the head {path} does not fit its configuration ({detail}): train it again") from None
    return head.eval().requires_grad_(False)
