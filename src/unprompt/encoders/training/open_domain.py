"""What the head says of pictures unlike all it remembers: ImageNet classes, as prompts speak of them, untrained."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from unprompt.encoders.memory_head import MemoryHead
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError, SourceError

NEIGHBOURS = 100
TEMPERATURE = 2.0
GENERIC_SHARE = 0.6
RIDGE = 10.0


def class_names() -> list[str]:
    """The names of the 1,000 ImageNet classes, as open_clip curates them.

    Raises:
        EncoderError: open_clip is not installed.

    """
    ensure_torchvision()
    try:
        import open_clip
    except ImportError as error:
        raise EncoderError(f"the ImageNet class names come from open_clip ({error}): install open_clip_torch") from None
    return list(open_clip.IMAGENET_CLASSNAMES)


def load_prompts(path: Path) -> list[str]:
    """The distinct prompts of a ``.jsonl`` file, sorted.

    Raises:
        SourceError: the file is missing, or a line is no JSON object with a prompt.

    """
    try:
        return sorted(
            {str(json.loads(line)["prompt"]).strip() for line in path.read_text(encoding="utf-8").splitlines()}
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"cannot read prompts from {path} ({error!r}): give a file with a prompt a line") from None


@torch.no_grad()
def set_class_values(head: MemoryHead, names: Tensor, prompts: Tensor, rows: Tensor, pooled_mean: Tensor) -> None:
    """Sets what the classes say.

    A class is said by the mean of the prompts nearest to its name: a name alone lies far from any prompt. Class values
    are centred, so that what they share comes from the generic prompt alone. Each row of the classifier's weights,
    scaled like a feature, is also an example of a feature of its class: ridge regression maps features to values.

    Args:
        head: to be set.
        names: (1000, dim) embeddings of the class names.
        prompts: (N, dim) embeddings of prompts such as image generators are given; their mean is the generic one.
        rows: (1000, 1280) the classifier's weights.
        pooled_mean: (1280,) the mean pooled features of the training pictures.

    """
    nearest = (names @ prompts.T).topk(min(NEIGHBOURS, len(prompts)), dim=1).indices  # (1000, NEIGHBOURS)
    values = F.normalize(prompts[nearest].mean(dim=1), dim=1)
    values = values - values.mean(dim=0)
    head.class_values.copy_(values)
    head.class_temperature.fill_(TEMPERATURE)
    directions = F.normalize(rows, dim=1)
    directions = directions - directions.mean(dim=0)
    ridge = RIDGE * directions.square().sum() / rows.shape[1] * torch.eye(rows.shape[1])
    head.class_map.copy_(torch.linalg.solve(directions.T @ directions + ridge, directions.T @ values).T)
    head.pooled_mean.copy_(pooled_mean)
    head.generic.copy_(GENERIC_SHARE * F.normalize(prompts.mean(dim=0), dim=0))
