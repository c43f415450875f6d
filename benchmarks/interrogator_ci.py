"""CLIP Interrogator's side of the comparison: run by `interrogator.py` under the Python that has clip-interrogator.

CI's own code does the work. What is ours is the model object that it is given: the `starter` encoder behind the
interface of an open_clip model, so that both sides score with the same embeddings.

    python interrogator_ci.py CACHE_FOLDER
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interrogator_worker import CountingEncoder, serve, timed
from unprompt.encoders import load_encoder
from unprompt.encoders.torchvision_fix import ensure_torchvision


class Tokens:
    """What CI's tokenizer returns here: the texts themselves, and CLIP's 77 token ids of one where CI looks at them.

    CI only ever moves tokens to a device, gives them to the model, and asks whether ``tokens[0][-1]`` is padding. The
    ids are made when they are asked for: the starter has a tokenizer of its own, and CI should not pay for two.
    """

    def __init__(self, texts: list[str], clip_tokenize: Any) -> None:
        self.texts = texts
        self._clip_tokenize = clip_tokenize

    def to(self, device: Any) -> Tokens:
        return self

    def __getitem__(self, i: int) -> Tensor:
        ids: Tensor = self._clip_tokenize([self.texts[i]])[0]
        return ids


class StarterModel:
    """The starter encoder as CI sees a CLIP model. A "picture" is its embedding, which passes through unchanged."""

    def __init__(self, encoder: CountingEncoder) -> None:
        self._encoder = encoder

    def to(self, device: Any) -> StarterModel:
        return self

    def encode_image(self, images: Tensor) -> Tensor:
        return images.clone()

    def encode_text(self, tokens: Tokens) -> Tensor:
        return torch.from_numpy(self._encoder.encode_texts(tokens.texts))


class Side:
    """The calls that `interrogator.py` makes."""

    def __init__(self, cache: Path) -> None:
        ensure_torchvision()
        self._ci = import_module("clip_interrogator.clip_interrogator")
        self._encoder = CountingEncoder(load_encoder("starter"))
        self._features = np.zeros((0, 0), dtype=np.float32)
        # The name only picks the tokenizer and the cache files. Models are no fields of CI's Config, so they are set.
        config = self._ci.Config(clip_model_name="ViT-L-14/openai", caption_model_name=None, device="cpu", quiet=True)
        config.cache_path, config.download_cache = str(cache), False
        config.clip_model = StarterModel(self._encoder)
        config.clip_preprocess = torch.from_numpy
        open_clip: Any = import_module("open_clip")
        tokenizer = open_clip.get_tokenizer("ViT-L-14")
        open_clip.get_tokenizer = lambda name: lambda texts: Tokens(list(texts), tokenizer)
        self._interrogator = self._ci.Interrogator(config)
        self._merged = self._merge()

    def _merge(self) -> Any:
        ci = self._interrogator
        return self._ci._merge_tables([ci.artists, ci.flavors, ci.mediums, ci.movements, ci.trendings], ci)

    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        names = ("clip-interrogator", "open_clip_torch", "transformers", "torch", "numpy")
        return {name: version(name) for name in names}

    def export(self, table: str, lists: str) -> None:
        """Writes CI's merged embeddings, as it ranks with them, and then its lists, by name and "merged"."""
        np.save(table, np.stack(self._merged.embeds))
        path = self._interrogator.config.data_path
        names = ("artists", "flavors", "mediums", "movements")
        texts = {name: self._ci.load_list(path, f"{name}.txt") for name in names}
        texts |= {"trendings": self._interrogator.trendings.labels, "merged": self._merged.labels}
        Path(lists).write_text(json.dumps(texts), encoding="utf-8")

    def features(self, path: str) -> int:
        """Loads the pictures' embeddings, (Q, D); later calls name them by row."""
        self._features = np.load(path, allow_pickle=False)
        return len(self._features)

    def rank(self, rows: list[int], k: int) -> dict[str, Any]:
        """CI's `rank` on its merged table, one picture after another, as CI has no batches."""
        pictures = [torch.from_numpy(self._features[[row]]) for row in rows]
        return timed(lambda: [self._merged.rank(picture, k) for picture in pictures], self._encoder)

    def compose(self, mode: str, rows: list[int], captions: list[str]) -> dict[str, Any]:
        """One of CI's modes, one picture after another."""
        run = {
            "best": self._interrogator.interrogate,
            "fast": self._interrogator.interrogate_fast,
            "classic": self._interrogator.interrogate_classic,
            "negative": lambda picture, caption: self._interrogator.interrogate_negative(picture),
        }[mode]
        pictures = [self._features[row] for row in rows]

        def all_pictures() -> list[str]:
            return [run(picture, caption=caption) for picture, caption in zip(pictures, captions, strict=True)]

        return timed(all_pictures, self._encoder)


def main() -> None:
    side = Side(Path(sys.argv[1]))
    names = ("versions", "export", "features", "rank", "compose")
    serve({name: getattr(side, name) for name in names})


if __name__ == "__main__":
    main()
