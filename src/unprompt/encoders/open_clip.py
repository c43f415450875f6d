"""Encoders from open_clip: ``open_clip:NAME``.

NAME is one of

- ``MODEL/TAG``: an architecture of open_clip's and a tag of its weights, such as ``ViT-H-14/laion2b_s32b_b79k``;
- ``MODEL/PATH``: an architecture and a checkpoint file: ``ViT-B-32//models/a.pt`` or ``ViT-B-32/./a.safetensors``;
- ``hf-hub:ORGANISATION/NAME``: a hub repository with open_clip_config.json and safetensors weights;
- ``local-dir:FOLDER``: a folder with open_clip_config.json and weights; a path that starts with / . ~ means the same.

MODEL ends at the first slash. Files come from the hub as `unprompt.encoders.hub` describes, and only as safetensors;
a checkpoint of one's own may also be a torch file, which is read with ``weights_only=True``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unprompt.encoders.fingerprint import fingerprint, tokenizer_hash
from unprompt.encoders.hub import TOKENIZER_EXTRAS, TOKENIZER_FILES, local_folder, obtain
from unprompt.encoders.preprocessing import Preprocessing
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

    from unprompt.encoders.joint import JointEncoder

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")


@dataclass(frozen=True)
class Source:
    """Where a model's parts are, all of them on this machine.

    Attributes:
        name: the encoder's name without its prefix, paths made absolute.
        model: the name as open_clip takes it.
        config: the architecture, as open_clip's model configurations hold it.
        folder: holds the tokenizer's files, if it is not one of open_clip's own.
        checkpoint: the weights' file, or None where open_clip finds it in the folder.
        preprocess: what replaces open_clip's default preprocessing.

    """

    name: str
    model: str
    config: Mapping[str, Any]
    folder: Path | None = None
    checkpoint: Path | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)


def load(name: str, device: str = "cpu") -> JointEncoder:
    """Loads ``open_clip:NAME``; the module's docstring gives NAME's grammar.

    Args:
        name: what follows the prefix.
        device: "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        EncoderError: the extra is missing, the name or its files are not there or not valid, the hub is needed and
            cannot be reached, or the preprocessing is one that `Preprocessing` cannot do.

    """
    open_clip = _import_open_clip()
    source = _resolve(open_clip, name)
    tokenizer = _tokenizer(open_clip, source)
    model = _model(open_clip, source)
    from unprompt.encoders.joint import JointEncoder, Towers
    from unprompt.encoders.open_clip_text import TextTower

    tower = TextTower(model)

    def tokenize(texts: Sequence[str]) -> dict[str, Tensor]:
        return {"text": tokenizer(list(texts))}

    towers = Towers(
        images=model.encode_image,
        texts=lambda tokens: tower.encode(tokens["text"]),
        tokenize=lambda texts: {"text": tower.cut(tokenizer(list(texts)))},
    )
    preprocess = preprocessing(open_clip.get_model_preprocess_cfg(model))
    return JointEncoder(
        name=f"open_clip:{source.name}",
        dim=int(source.config["embed_dim"]),
        fingerprint=fingerprint(
            model.state_dict(), preprocess.to_dict(), tokenizer_hash(tokenize), **_architecture(source.config)
        ),
        preprocess=preprocess,
        model=model,
        towers=towers,
        device=device,
    )


def preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """open_clip's preprocessing configuration as ours; equal for RGB pictures (others we convert before resizing).

    Raises:
        EncoderError: it resizes in a way that `Preprocessing` cannot.

    """
    resize = config.get("resize_mode") or "shortest"
    if resize not in ("shortest", "squash"):
        raise EncoderError(
            f"open_clip's resize_mode {resize!r} pads the picture, which is not supported: use another model"
        )
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else (tuple(size) * 2)[:2]
    # open_clip ignores the interpolation for oblong inputs that keep the aspect ratio, and takes "random" for bicubic.
    oblong = resize == "shortest" and height != width
    bilinear = config.get("interpolation") == "bilinear" and not oblong
    return Preprocessing(
        size=(int(height), int(width)),
        resize=resize,
        interpolation="bilinear" if bilinear else "bicubic",
        mean=_three(config["mean"]),
        std=_three(config["std"]),
    )


def _three(value: float | Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = [value] * 3 if isinstance(value, (int, float)) else value
    return float(red), float(green), float(blue)


def _import_open_clip() -> ModuleType:
    ensure_torchvision()
    try:
        import open_clip
    except ImportError as error:
        raise EncoderError(f"open_clip cannot be imported ({error}): pip install 'unprompt[open-clip]'") from error
    module: ModuleType = open_clip
    return module


def _resolve(open_clip: ModuleType, name: str) -> Source:
    scheme, colon, rest = name.partition(":")
    if colon and scheme == "hf-hub":
        groups = [(CONFIG,), WEIGHTS]
        folder = obtain(rest, groups, extras=TOKENIZER_EXTRAS)
        return _folder_source(folder, name)
    path = rest if colon and scheme == "local-dir" else name
    if path != name or path.startswith(("/", ".", "~")):
        local = local_folder(path)
        if local is None:
            raise EncoderError(f"there is no folder {path!r}: check the path")
        return _folder_source(local, f"local-dir:{local}")
    model, slash, tag = name.partition("/")
    config = open_clip.get_model_config(model)
    if config is None:
        raise EncoderError(
            f"open_clip has no model {model!r}: use MODEL/TAG such as ViT-B-32/laion2b_s34b_b79k, or ./FOLDER"
        )
    if not (slash and tag):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none: give a file"
        raise EncoderError(f"open_clip:{name} names no weights: use {model}/TAG with one of these tags ({tags})")
    return _tag_source(open_clip, model, tag, config)


def _folder_source(folder: Path, name: str) -> Source:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
    except FileNotFoundError:
        raise EncoderError(f"{folder} has no {CONFIG}: name a folder that open_clip saved") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{folder / CONFIG} cannot be read ({type(error).__name__}: {error}): save the model again"
        ) from error
    if missing:
        raise EncoderError(f"{folder / CONFIG} has no {', '.join(sorted(missing))} in model_cfg: save the model again")
    return Source(name=name, model=f"local-dir:{folder}", config=config, folder=folder)


def _tag_source(open_clip: ModuleType, model: str, tag: str, config: dict[str, Any]) -> Source:
    from open_clip.pretrained import get_pretrained_cfg

    file = Path(tag).expanduser()
    if file.is_file():
        return Source(name=f"{model}/{file.resolve()}", model=model, config=config, checkpoint=file.resolve())
    known = get_pretrained_cfg(model, tag)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none: give a file"
        raise EncoderError(
            f"{tag!r} is neither a file nor a tag of open_clip's {model}: use one of these tags ({tags})"
        )
    repository, _, filename = known.get("hf_hub", "").rpartition("/")
    if not repository:
        raise EncoderError(
            f"open_clip has {model}/{tag} outside the hub: download {known.get('url')} and use {model}/PATH"
        )
    group = (Path(filename).stem + ".safetensors", *WEIGHTS) if filename else WEIGHTS
    folder = obtain(repository, [group])
    checkpoint = next(folder / weights for weights in group if (folder / weights).is_file())
    # open_clip only warns where the tag was trained with QuickGELU and the architecture's default is GELU; we follow
    # the tag.
    config = {**config, "quick_gelu": bool(config.get("quick_gelu") or known.get("quick_gelu"))}
    return Source(name=f"{model}/{tag}", model=model, config=config, checkpoint=checkpoint, preprocess=known)


def _tokenizer(open_clip: ModuleType, source: Source) -> Any:
    text = source.config["text_cfg"]
    name = text.get("hf_tokenizer_name")
    if not name:
        return open_clip.get_tokenizer(source.model)
    folder = source.folder
    if folder is None or not any((folder / file).is_file() for file in TOKENIZER_FILES):
        folder = local_folder(name) or obtain(name, [TOKENIZER_FILES], extras=(*TOKENIZER_EXTRAS, "config.json"))
    from open_clip.tokenizer import HFTokenizer

    try:
        return HFTokenizer(
            str(folder),
            context_length=text.get("context_length", 77),
            tokenizer_mode=text.get("tokenizer_mode"),
            local_files_only=True,
            **text.get("tokenizer_kwargs", {}),
        )
    except (ImportError, OSError, ValueError) as error:
        raise EncoderError(f"the tokenizer in {folder} cannot be loaded: {_line(error)}") from error


def _model(open_clip: ModuleType, source: Source) -> Any:
    text = deepcopy(dict(source.config["text_cfg"]))
    replaced: dict[str, Any] = {}
    tower = text.get("hf_model_name")
    if tower:
        # Only the architecture is wanted of the text tower's own repository: its weights are in the checkpoint.
        folder = local_folder(tower) or obtain(tower, [("config.json",)])
        replaced["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    try:
        return open_clip.create_model(
            source.model,
            pretrained=str(source.checkpoint) if source.checkpoint else None,
            force_quick_gelu=bool(source.config.get("quick_gelu")),
            force_preprocess_cfg=dict(source.preprocess),
            require_pretrained=True,
            **replaced,
        )
    except Exception as error:  # open_clip, torch and pickle raise a dozen kinds for a damaged or mismatched checkpoint
        raise EncoderError(f"open_clip:{source.name} cannot be loaded: {_line(error)}") from error


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights do not show: the same weights with another activation or number of heads are another encoder."""
    return {
        "quick_gelu": bool(config.get("quick_gelu")),
        "head_width": config["vision_cfg"].get("head_width", 64),
        "text_heads": config["text_cfg"].get("heads", 8),
    }


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
