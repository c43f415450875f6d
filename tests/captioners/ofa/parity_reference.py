"""Runs the reference OFA, and writes what it computes for `test_parity` to compare with. Not collected by pytest.

The reference is modelscope 1.40.2 (Apache-2.0), which runs with transformers 4 only, so it has an environment of its
own, outside the repository. It is read from there; nothing of it is copied:

    python -m venv REFERENCE
    REFERENCE/bin/pip install "torch>=2.6,<2.14" transformers==4.40.2 safetensors
    REFERENCE/bin/pip install --no-deps modelscope==1.40.2
    REFERENCE/bin/python tests/captioners/ofa/parity_reference.py FOLDER
    UNPROMPT_OFA_REFERENCE=FOLDER python -m pytest tests/captioners/ofa/test_parity.py

Of each variant FOLDER gets a folder with a random checkpoint as the reference saves it (``pytorch_model.bin``), the
same as safetensors, which hold shared weights once, inputs and activations (``activations.safetensors``), and answers
(``answers.json``). ``--variants medium base large`` compares larger sizes; ``--formula`` prints what is frozen in
`test_formula`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file, save_model
from shared import OFFICIAL, fill, formula_inputs, write_vocabulary
from torch import Tensor, nn

SMALL = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_layers": 2,
    "decoder_ffn_dim": 48,
    "decoder_attention_heads": 2,
    "resnet_type": "resnet18",
    "token_bucket_size": 8,
    "image_bucket_size": 33,
}


def size(width: int, heads: int, encoder: int, decoder: int, resnet: str) -> dict[str, Any]:
    config = {"d_model": width, "resnet_type": resnet, "encoder_layers": encoder, "decoder_layers": decoder}
    return config | {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("ffn_dim", 4 * width), ("attention_heads", heads))
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": size(256, 4, 4, 4, "resnet50"),
    "small": SMALL,
    "post-norm": SMALL
    | dict.fromkeys(
        (
            "normformer",
            "encoder_normalize_before",
            "decoder_normalize_before",
            "layernorm_embedding",
            "patch_layernorm_embedding",
            "code_layernorm_embedding",
            "add_type_embedding",
        ),
        False,
    ),
    "entangled": SMALL
    | {
        "entangle_position_embedding": True,
        "share_attn_bias": True,
        "scale_embedding": True,
        "share_decoder_input_output_embed": False,
        "use_gamma_feature": True,
        "attn_scale_factor": 1.5,
        "activation_function": "relu",
        "resnet_type": "resnet50",
    },
    "disentangled": SMALL | {"entangle_position_embedding": True, "disable_entangle": True},
    "stretched": SMALL | {"interpolate_position": True, "orig_patch_image_size": 64},
}
LARGER = {
    "medium": size(512, 8, 4, 4, "resnet101"),
    "base": size(768, 12, 6, 6, "resnet101"),
    "large": size(1024, 16, 12, 12, "resnet152"),
    "huge": size(1280, 16, 24, 12, "resnet152"),
}
PICTURES = {"tiny": (256, 256), "stretched": (128, 96)}
BEAMS = (1, 5)
LONGEST = 40
BEGIN, END, MARGIN = 0, 2, -0.1


def import_reference() -> types.SimpleNamespace:
    """The four classes, without the packages around them, which import what is not installed."""
    spec = importlib.util.find_spec("modelscope")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("modelscope is not installed here: see the top of this file")
    root = Path(next(iter(spec.submodule_search_locations)))
    for name in ("", ".models", ".models.multi_modal", ".models.multi_modal.ofa", ".utils"):
        package = types.ModuleType(f"modelscope{name}")
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[package.__name__] = package
    fairseq = types.ModuleType("fairseq.modules")
    fairseq.LayerNorm = nn.LayerNorm
    sys.modules |= {"fairseq": types.ModuleType("fairseq"), "fairseq.modules": fairseq}
    from modelscope.models.multi_modal.ofa.configuration_ofa import OFAConfig
    from modelscope.models.multi_modal.ofa.generate.sequence_generator import SequenceGenerator
    from modelscope.models.multi_modal.ofa.modeling_ofa import OFAModel
    from modelscope.models.multi_modal.ofa.tokenization_ofa import OFATokenizer

    return types.SimpleNamespace(config=OFAConfig, model=OFAModel, tokenizer=OFATokenizer, generator=SequenceGenerator)


def randomise(model: nn.Module, seed: int) -> None:
    """Every parameter and statistic away from 0 and 1, where a factor left out would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:  # norms, biases, scales of heads and branches
                parameter += 0.2 * noise
            elif "rel_pos_table" in name:
                parameter.copy_(0.5 * noise)
            elif parameter.dim() == 2:
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += 0.2 * torch.rand(buffer.shape, generator=generator)


def activations(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the trunk and every layer give, the encoder's result, and the logits."""
    seen: dict[str, Tensor] = {}
    modules = {"trunk": model.encoder.embed_images}
    modules |= {f"encoder.{i}": layer for i, layer in enumerate(model.encoder.layers)}
    modules |= {f"decoder.{i}": layer for i, layer in enumerate(model.decoder.layers)}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, out: seen.update({name: out[0] if isinstance(out, tuple) else out})

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    encoder = model.encoder(inputs["questions"], inputs["pictures"], patch_masks=torch.tensor([True, True]))
    out = model(
        input_ids=inputs["questions"],
        patch_images=inputs["pictures"],
        patch_masks=torch.tensor([True, True]),
        decoder_input_ids=inputs["tokens"],
    )
    for hook in hooks:
        hook.remove()
    seen |= {"states": encoder.last_hidden_state, "positions": encoder.position_embedding[0], "logits": out.logits}
    return seen


def make_answers_end(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Makes the end-of-text almost as likely as the likeliest token: of random weights it would hardly ever come up."""
    states: list[Tensor] = []
    hook = model.decoder.output_projection.register_forward_pre_hook(lambda _module, given: states.append(given[0]))
    logits = activations(model, inputs)["logits"]
    hook.remove()
    mean = states[0].mean(dim=(0, 1))
    target = logits.amax(dim=-1).mean() - MARGIN
    weight = model.decoder.output_projection.weight
    weight[END] = mean * target / (mean @ mean)
    weight[BEGIN] = -weight[END]  # the reference would write it, and count it twice when it blocks n-grams


def answers(reference: types.SimpleNamespace, model: nn.Module, tokenizer: Any, inputs: dict[str, Tensor]) -> Any:
    """Beams of each width, as OFA decodes captions: best first, tokens without the beginning-of-text."""
    net_input = {"input_ids": inputs["questions"], "patch_images": inputs["pictures"]}
    net_input["patch_masks"] = torch.tensor([True, True])
    found = {}
    for beams in BEAMS:
        generator = reference.generator(
            tokenizer=tokenizer, beam_size=beams, max_len_b=LONGEST, min_len=1, no_repeat_ngram_size=3
        )
        rows = generator.generate([model], {"net_input": net_input})
        found[str(beams)] = [[(beam["tokens"].tolist(), float(beam["score"])) for beam in row] for row in rows]
    return found


def write(reference: types.SimpleNamespace, name: str, values: dict[str, Any], folder: Path, seed: int) -> None:
    """One variant."""
    small = values is SMALL or values.get("d_model") == SMALL["d_model"]
    write_vocabulary(folder, 0 if small else OFFICIAL)
    tokenizer = reference.tokenizer.from_pretrained(str(folder))
    tokenizer.add_tokens([f"<code_{i}>" for i in range(8192)])
    tokenizer.add_tokens([f"<bin_{i}>" for i in range(1000)])
    torch.manual_seed(seed)
    model = reference.model(reference.config(vocab_size=len(tokenizer), **values)).eval()
    randomise(model, seed)
    height, width = PICTURES.get(name, (128, 128))
    texts = [" what does the image describe?", " a photo of a cat<bin_7> 'é' <code_8191>  <mask> x"]
    questions = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, questions))
    padded = torch.tensor([row + [1] * (longest - len(row)) for row in questions])
    generator = torch.Generator().manual_seed(seed)
    inputs = {"pictures": torch.randn((2, 3, height, width), generator=generator), "questions": padded}
    start = torch.zeros((2, 1), dtype=torch.int64)
    inputs["tokens"] = torch.cat([start, torch.randint(4, len(tokenizer), (2, 20), generator=generator)], dim=1)
    with torch.no_grad():
        make_answers_end(model, inputs)
        model.save_pretrained(folder, safe_serialization=False)
        save_model(model, str(folder / "model.safetensors"))
        seen = activations(model, inputs)
        found = answers(reference, model, tokenizer, inputs)
    save_file(
        {key: value.contiguous().clone() for key, value in {**inputs, **seen}.items()},
        folder / "activations.safetensors",
    )
    facts = {"texts": texts, "questions": questions, "beams": found}
    facts["parameters"] = {key: list(value.shape) for key, value in model.state_dict().items()}
    facts["decoded"] = [[tokenizer.decode(tokens, skip_special_tokens=True) for tokens, _ in row] for row in found["5"]]
    (folder / "answers.json").write_text(json.dumps(facts), encoding="utf-8")
    print(
        f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters, "
        f"answers of {[len(row[0][0]) for row in found['5']]} tokens"
    )


def print_formula(reference: types.SimpleNamespace) -> None:
    """The first logits of the first and the last token of small models whose weights follow a formula."""
    inputs = formula_inputs()
    for name in ("small", "post-norm", "entangled", "disentangled", "stretched"):
        changes = {"orig_patch_image_size": 32} if name == "stretched" else {}
        model = reference.model(reference.config(vocab_size=60, **(VARIANTS[name] | changes))).eval()
        fill(model)
        with torch.no_grad():
            logits = activations(model, inputs)["logits"]
        print(
            f'    "{name}": {[round(float(value), 5) for value in torch.cat([logits[0, 0, :4], logits[1, -1, :4]])]},'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--formula", action="store_true")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=[*VARIANTS, *LARGER])
    arguments = parser.parse_args()
    reference = import_reference()
    variants = VARIANTS | LARGER
    if arguments.formula:
        print_formula(reference)
        return
    for name in arguments.variants:
        write(reference, name, variants[name], arguments.folder / name, seed=list(variants).index(name))


if __name__ == "__main__":
    main()
