"""CLIP and SigLIP encoders from transformers: ``transformers:NAME_OR_FOLDER``.

NAME_OR_FOLDER is a folder that ``save_pretrained`` wrote (an existing folder wins over a hub name), or a hub
repository such as ``openai/clip-vit-large-patch14``, whose files come as `unprompt.encoders.hub` describes. Only
safetensors weights are read.

Pictures are resized by Pillow, as both families were trained and as transformers itself does without torchvision;
with torchvision it resizes tensors instead, which differs by a few grey levels here and there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unprompt.encoders.fingerprint import fingerprint, tokenizer_hash
from unprompt.encoders.hub import TOKENIZER_EXTRAS, TOKENIZER_FILES, local_folder, no_progress_bar, obtain
from unprompt.encoders.preprocessing import Preprocessing
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

    from unprompt.encoders.joint import JointEncoder

PADDING: dict[str, bool | str] = {"clip": True, "siglip": "max_length"}
"""Family -> how its texts are padded. SigLIP pools the last position, so it was trained with every text at full
length."""

FILES = (
    ("config.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("model.safetensors", "model.safetensors.index.json"),
    TOKENIZER_FILES,
)
EXTRAS = (*TOKENIZER_EXTRAS, "preprocessor_config.json", "processor_config.json", "model-*-of-*.safetensors")

RESAMPLES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def load(name: str, device: str = "cpu") -> JointEncoder:
    """Loads ``transformers:NAME_OR_FOLDER``.

    Args:
        name: what follows the prefix.
        device: "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        EncoderError: the extra is missing, the name or its files are not there or not valid, the hub is needed and
            cannot be reached, the model is neither CLIP nor SigLIP, or its preprocessing is one that `Preprocessing`
            cannot do.

    """
    transformers = _import_transformers()
    local = local_folder(name)
    folder = local or obtain(name, FILES, extras=EXTRAS)
    name = f"transformers:{local or name}"
    config = _read(transformers.AutoConfig, folder)
    if config.model_type not in PADDING:
        raise EncoderError(f"{name} is a {config.model_type!r} model: use one of {', '.join(PADDING)}")
    tokenizer = _read(transformers.AutoTokenizer, folder)
    preprocess = preprocessing(_read(transformers.AutoImageProcessor, folder, backend="pil"))
    model = _model(transformers, folder)
    context_length = config.text_config.max_position_embeddings
    from unprompt.encoders.joint import JointEncoder, Towers

    def tokenize(texts: Sequence[str]) -> dict[str, Tensor]:
        options = {"padding": PADDING[config.model_type], "truncation": True, "max_length": context_length}
        tokens = tokenizer(list(texts), return_tensors="pt", **options)
        return {key: tokens[key] for key in ("input_ids", "attention_mask") if key in tokens}

    def texts(tokens: Mapping[str, Tensor]) -> Tensor:
        return pooled(model.get_text_features(**tokens))

    def images(pixels: Tensor) -> Tensor:
        return pooled(model.get_image_features(pixel_values=pixels))

    return JointEncoder(
        name=name,
        dim=_dim(config),
        fingerprint=fingerprint(
            model.state_dict(), preprocess.to_dict(), tokenizer_hash(tokenize), **_architecture(config)
        ),
        preprocess=preprocess,
        model=model,
        towers=Towers(images=images, texts=texts, tokenize=tokenize),
        device=device,
    )


def pooled(output: Any) -> Tensor:
    """The (B, D) features: transformers up to 4 returns them bare, from 5 on as the pooler's output of a record."""
    features: Tensor = getattr(output, "pooler_output", output)
    return features


def preprocessing(processor: Any) -> Preprocessing:
    """An image processor of transformers' as ours.

    Raises:
        EncoderError: it does something that `Preprocessing` cannot, such as padding.

    """
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
    if kind not in ("CLIPImageProcessor", "SiglipImageProcessor"):
        raise _unsupported(f"{kind} itself")
    for option, wanted in (("do_resize", True), ("do_rescale", True), ("do_pad", False)):
        if bool(getattr(processor, option, None)) != wanted:
            raise _unsupported(f"{option}={getattr(processor, option, None)}")
    if abs(float(processor.rescale_factor) * 255 - 1) > 1e-6:
        raise _unsupported(f"rescale_factor={processor.rescale_factor}")
    if int(processor.resample) not in RESAMPLES:
        raise _unsupported(f"resample={processor.resample}")
    normalised = bool(processor.do_normalize)
    return Preprocessing(
        interpolation=RESAMPLES[int(processor.resample)],
        mean=_three(processor.image_mean) if normalised else (0.0, 0.0, 0.0),
        std=_three(processor.image_std) if normalised else (1.0, 1.0, 1.0),
        **_geometry(processor),
    )


def _geometry(processor: Any) -> dict[str, Any]:
    size = _sides(processor.size)
    crop = _sides(processor.crop_size) if getattr(processor, "do_center_crop", None) else {}
    if set(size) == {"height", "width"} and crop in ({}, size):
        return {"size": (size["height"], size["width"]), "resize": "squash"}
    if set(size) == {"shortest_edge"} and set(crop) == {"height", "width"}:
        height, width, shortest = crop["height"], crop["width"], size["shortest_edge"]
        if max(height, width) <= shortest:
            return {"size": (height, width), "resize": "shortest", "shortest": shortest, "crop": "floor"}
    raise _unsupported(f"size={size} with crop_size={crop or None}")


def _sides(size: Any) -> dict[str, int]:
    return {key: int(value) for key, value in dict(size).items() if value is not None}


def _unsupported(what: str) -> EncoderError:
    return EncoderError(
        f"the image processor's {what} is not supported: use a model that resizes to a fixed size, unpadded"
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _import_transformers() -> ModuleType:
    ensure_torchvision()
    try:
        import transformers
    except ImportError as error:
        raise EncoderError(
            f"transformers cannot be imported ({error}): pip install 'unprompt[transformers]'"
        ) from error
    module: ModuleType = transformers
    return module


def _read(auto: Any, folder: Path, **options: Any) -> Any:
    try:
        return auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises many kinds for a file that is missing or damaged
        raise EncoderError(f"{folder} cannot be loaded by {auto.__name__}: {_line(error)}") from error


def _model(transformers: ModuleType, folder: Path) -> Any:
    options = {"use_safetensors": True, "output_loading_info": True}
    with no_progress_bar():
        model, report = _read(transformers.AutoModel, folder, **options)
    # transformers only warns, and leaves what is missing random.
    missing = sorted(report["missing_keys"])
    if missing:
        raise EncoderError(f"{folder} lacks {len(missing)} weights, {missing[0]} first: save the whole model again")
    return model


def _dim(config: Any) -> int:
    if config.model_type == "siglip":
        return int(getattr(config.text_config, "projection_size", None) or config.text_config.hidden_size)
    return int(config.projection_dim)


def _architecture(config: Any) -> dict[str, Any]:
    """What the weights do not show: the same weights with another activation or number of heads are another encoder."""
    facts = ("hidden_act", "num_attention_heads")
    towers = {"text": config.text_config, "vision": config.vision_config}
    return {f"{tower}_{fact}": getattr(part, fact) for tower, part in towers.items() for fact in facts}


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
