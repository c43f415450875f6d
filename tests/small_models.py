"""Small random models, saved as open_clip and transformers save theirs, and pictures and texts to try them on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# The last two leave an odd margin that torchvision and transformers halve differently.
SIZES = [(64, 64), (33, 47), (47, 33), (201, 40), (31, 300), (5, 7), (1, 1), (32, 32), (257, 255), (35, 32), (64, 70)]
TEXTS = ["a photo of a cat", "", "Œuvre, 水彩画 🎨", "UPPER lower", "word " * 300]
OPEN_CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TOWERS = {
    "text_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
    "vision_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise, so that any difference in resizing or cropping shows."""
    pixels = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save_open_clip(folder: Path, config: dict[str, Any], preprocess: dict[str, Any], seed: int = 0) -> Path:
    """A folder that open_clip loads as ``local-dir:``."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    towers = (config["embed_dim"], config["vision_cfg"], config["text_cfg"])
    model = open_clip.CLIP(*towers, quick_gelu=config.get("quick_gelu", False))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return folder


def save_clip(folder: Path, processor: dict[str, Any] | None = None, **vision: Any) -> Path:
    """A CLIPModel of transformers' with its byte-level BPE tokenizer and image processor."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    tokenizer = CLIPTokenizer(vocab=_clip_vocabulary(), merges=[("c", "a"), ("ca", "t</w>")])
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 20, "pad_token_id": 1}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config={**TOWERS["text_config"], **text},
            vision_config={**TOWERS["vision_config"], "image_size": 32, "patch_size": 8, **vision},
            projection_dim=24,
        )
    )
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return _save(folder, model, tokenizer, "CLIPImageProcessor", {**sizes, **(processor or {})})


def save_siglip(folder: Path) -> Path:
    """A SiglipModel of transformers' with its SentencePiece tokenizer, trained here, and image processor."""
    import torch
    from sentencepiece import SentencePieceTrainer
    from transformers import SiglipConfig, SiglipModel, SiglipTokenizer

    folder.mkdir(parents=True)
    (folder / "corpus.txt").write_text("a photo of a cat\nupper lower word\nthe quick brown fox jumps over it\n" * 20)
    ids = {"pad_id": 2, "eos_id": 1, "unk_id": 0, "bos_id": -1}
    SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "pieces"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **ids,
    )
    tokenizer = SiglipTokenizer(str(folder / "pieces.model"), model_max_length=16)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    torch.manual_seed(0)
    model = SiglipModel(
        SiglipConfig(
            text_config={**TOWERS["text_config"], **text},
            vision_config={**TOWERS["vision_config"], "image_size": 32, "patch_size": 8},
        )
    )
    return _save(folder, model, tokenizer, "SiglipImageProcessor", {"size": {"height": 32, "width": 32}})


def _clip_vocabulary() -> dict[str, int]:
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def _save(folder: Path, model: Any, tokenizer: Any, kind: str, processor: dict[str, Any]) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    values = {"image_processor_type": kind, **processor}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder
