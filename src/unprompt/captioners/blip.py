"""`blip`: BLIP and BLIP-2 through transformers' classes, written by the same decoding as every other captioner.

Li et al., "BLIP" (2022) and "BLIP-2" (2023). Names are folders that ``save_pretrained`` wrote, or hub repositories such
as ``Salesforce/blip-image-captioning-base``, fetched as `unprompt.encoders.hub` says; only safetensors are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unprompt.captioners import language_model as lm
from unprompt.captioners.decode import DecodeConfig
from unprompt.captioners.decode_beam import beam_search
from unprompt.captioners.interface import CaptionerError, Decodable, State, reorder
from unprompt.captioners.neighbours import NeighbourDecoder, NeighbourMixture
from unprompt.encoders.hub import TOKENIZER_EXTRAS, TOKENIZER_FILES, local_folder, obtain
from unprompt.pictures.opening import to_rgb
from unprompt.types import Candidate, Part

FILES = (*lm.FILES, ("preprocessor_config.json", "processor_config.json"), TOKENIZER_FILES)
EXTRAS = (*lm.EXTRAS, *TOKENIZER_EXTRAS, "preprocessor_config.json", "processor_config.json")

CLASSES = {"blip": "BlipForConditionalGeneration", "blip-2": "Blip2ForConditionalGeneration"}
"""The configuration's model_type -> the class."""


class CrossDecoder:
    """A decoder that attends to encoded tokens: BLIP's, and BLIP-2's where its language model is a T5.

    The keys and values of the encoded tokens are computed by the first step and belong to what is fixed from then on.
    """

    def __init__(self, forward: Any) -> None:
        """Wraps ``forward(tokens (N, T), encoded (N, S, D), cache) -> (logits (N, T, V), cache)``."""
        self._forward = forward

    def start(self, encoded: Tensor, first: Sequence[int] = ()) -> State:
        """The state of B captions that all begin with the tokens ``first``."""
        pictures = torch.arange(len(encoded), device=encoded.device)
        state = State({"encoded": encoded}, {}, pictures)
        if first:
            _, state = self._read(state, torch.tensor([list(first)] * len(encoded), device=encoded.device))
        return state

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `Decodable.step`."""
        return self._read(state, tokens[:, None])

    def reorder(self, state: State, rows: Tensor) -> State:
        """See `Decodable.reorder`."""
        return reorder(state, rows)

    def _read(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        cross = {name: part for name, part in state.fixed.items() if name != "encoded"}
        both = import_module("transformers").EncoderDecoderCache(lm.pack(state.moving), lm.pack(cross))
        logits, cache = self._forward(tokens, state.fixed["encoded"], both)
        fixed = {"encoded": state.fixed["encoded"], **lm.unpack(cache.cross_attention_cache)}
        return logits[:, -1], State(fixed, lm.unpack(cache.self_attention_cache), state.pictures)


class PrefixDecoder:
    """BLIP-2's causal language model, which reads the picture as its first tokens."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def start(self, embeddings: Tensor) -> State:
        """The state of B captions after (B, T, D) embeddings."""
        _, cache = lm.read(self.model, embeddings)
        return State({}, cache, torch.arange(len(embeddings), device=embeddings.device))

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `Decodable.step`."""
        logits, cache = lm.step(self.model, state.moving, tokens)
        return logits, state._replace(moving=cache)

    def reorder(self, state: State, rows: Tensor) -> State:
        """See `Decodable.reorder`."""
        return reorder(state, rows)


class BlipCaptioner:
    """A `Captioner`: load it with `load`. A candidate's score is its mean log-probability a token, at most 0."""

    def __init__(
        self,
        name: str,
        model: Any,
        processor: Any,
        tokenizer: Any,
        *,
        prompt: str = "",
        mixture: NeighbourMixture | None = None,
        no_repeat_ngram: int = 3,
    ) -> None:
        """Takes loaded parts.

        Args:
            name: the source of its candidates.
            model: of one of `CLASSES`, in inference mode.
            processor: its image processor.
            tokenizer: its tokenizer.
            prompt: what every caption begins with, such as "a photo of"; it is not part of the caption.
            mixture: how much neighbours say where they are told; by default as `NeighbourMixture` has it.
            no_repeat_ngram: see `DecodeConfig`.
        """
        self.name, self.model, self.processor, self.tokenizer = name, model, processor, tokenizer
        self.mixture, self.no_repeat_ngram = mixture or NeighbourMixture(), no_repeat_ngram
        self.prompt = self._ids(prompt) if prompt else []

    @torch.no_grad()
    def caption(
        self,
        images: Sequence[Image.Image],
        *,
        num_beams: int,
        max_tokens: int,
        neighbours: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Candidate]]:
        """See `unprompt.types.Captioner`; ``max_tokens`` counts the end-of-text."""
        if not images:
            return []
        pixels = self.processor(images=[to_rgb(image) for image in images], return_tensors="pt")["pixel_values"]
        decoder, state, begin, end = self._start(pixels.to(self.model.device, self.model.dtype))
        config = DecodeConfig(
            begin,
            end,
            self._forbidden(end),
            max_tokens=max_tokens,
            num_beams=num_beams,
            no_repeat_ngram=self.no_repeat_ngram,
        )
        if neighbours is not None:
            decoder = NeighbourDecoder(decoder, self.mixture)
            state = decoder.start(state, [[[begin, *self._ids(text), end] for text in each] for each in neighbours])
        found = beam_search(decoder, state, config)
        return [[self._candidate(each.tokens, each.score) for each in hypotheses] for hypotheses in found]

    def _start(self, pixels: Tensor) -> tuple[Decodable, State, int, int]:
        """The decoder, its state, and the tokens that begin and end a caption."""
        text = self.model.config.text_config
        if self.model.config.model_type == "blip":
            *first, begin = [text.bos_token_id, *self.prompt]
            cross = CrossDecoder(self._blip)
            return cross, cross.start(self.model.vision_model(pixels)[0], first), begin, text.sep_token_id
        prefix = self.model.get_image_features(pixels).pooler_output  # (B, Q, D)
        end = text.eos_token_id[0] if isinstance(text.eos_token_id, list) else text.eos_token_id
        if self.model.config.use_decoder_only_language_model:
            *first, begin = [text.bos_token_id, *self.prompt]
            decoder = PrefixDecoder(self.model.language_model)
            return decoder, decoder.start(self._behind(prefix, first)), begin, end
        # A T5 was trained with its text ended, behind the picture.
        encoder = self.model.language_model.get_encoder()
        encoded = encoder(inputs_embeds=self._behind(prefix, [*self.prompt, end])).last_hidden_state
        cross = CrossDecoder(self._t5)
        return cross, cross.start(encoded), text.decoder_start_token_id, end

    def _behind(self, prefix: Tensor, tokens: Sequence[int]) -> Tensor:
        """The prefix (B, Q, D) with the embeddings of tokens behind it."""
        if not tokens:
            return prefix
        words = self.model.get_input_embeddings()(torch.tensor(list(tokens), device=prefix.device))
        return torch.cat([prefix, words.to(prefix.dtype).expand(len(prefix), -1, -1)], dim=1)

    def _blip(self, tokens: Tensor, encoded: Tensor, cache: Any) -> tuple[Tensor, Any]:
        output = self.model.text_decoder(
            input_ids=tokens, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True, is_decoder=True
        )
        return output.logits, output.past_key_values

    def _t5(self, tokens: Tensor, encoded: Tensor, cache: Any) -> tuple[Tensor, Any]:
        output = self.model.language_model(
            decoder_input_ids=tokens, encoder_outputs=(encoded,), past_key_values=cache, use_cache=True
        )
        return output.logits, output.past_key_values

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _forbidden(self, end: int) -> tuple[int, ...]:
        """Tokens that are no text: those of the tokenizer, and numbers beyond it that only pad the embeddings."""
        size = self.model.config.text_config.vocab_size
        special = {*self.tokenizer.all_special_ids, getattr(self.model.config, "image_token_index", None)}
        beyond = range(len(self.tokenizer), size)
        return tuple(sorted({token for token in (*special, *beyond) if token is not None and token < size} - {end}))

    def _candidate(self, tokens: Sequence[int], score: float) -> Candidate:
        prompt = self.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()
        return Candidate(prompt, score, (Part(prompt, self.name, "caption", score),))


def load(name: str, device: str = "cpu", **options: Any) -> BlipCaptioner:
    """Loads BLIP or BLIP-2, in float32 on a CPU and in half precision elsewhere.

    Args:
        name: a folder or a hub repository, see the module.
        device: where it computes.
        options: of `BlipCaptioner`.

    Raises:
        CaptionerError: transformers is missing, or the folder holds no such model.
        EncoderError: the name is none, or the hub is needed and cannot be reached.
    """
    transformers = lm.import_transformers()
    folder = local_folder(name) or obtain(name, FILES, extras=EXTRAS)
    config = _read(transformers.AutoConfig, folder)
    if config.model_type not in CLASSES:
        raise CaptionerError(f"{name} is a {config.model_type!r} model: use one of {', '.join(CLASSES)}")
    dtype = torch.float32 if device == "cpu" else torch.float16
    model = lm.from_folder(getattr(transformers, CLASSES[config.model_type]), folder, dtype=dtype)
    processor = _read(transformers.AutoImageProcessor, folder, backend="pil")
    tokenizer = _read(transformers.AutoTokenizer, folder)
    return BlipCaptioner(f"blip:{name}", model.to(device).eval(), processor, tokenizer, **options)


def _read(auto: Any, folder: Any, **options: Any) -> Any:
    try:
        return auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises many kinds for a file that is missing or damaged
        detail = " ".join(str(error).split())[:160]
        raise CaptionerError(f"{folder} cannot be loaded by {auto.__name__} ({detail}): save it again") from error


CAPTIONERS: Mapping[str, Any] = {"blip": load}
"""What this module brings to a registry: prefix -> loader of the rest of the name."""
