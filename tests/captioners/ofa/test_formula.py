"""The reference's logits for weights that follow a formula, so that parity is tested where the reference is not."""

from __future__ import annotations

import pytest
import torch

from captioners.ofa.conftest import small_config
from captioners.ofa.shared import fill, formula_inputs
from unprompt.captioners.ofa.model import OfaModel

# Printed by `parity_reference.py --formula` under modelscope 1.40.2: the first four logits of the first token of the
# first answer, then of the last token of the second.
REFERENCE = {
    "small": [1.66404, 0.4391, -0.8166, -1.52797, 0.0111, -2.21822, -0.00197, 0.20371],
    "post-norm": [1.29973, 2.32568, -0.41401, -0.32837, 1.42723, 3.49509, -0.71605, 0.35935],
    "entangled": [2.43151, 2.62905, -2.05897, -0.93767, 2.01065, -2.07249, -0.86542, -1.49448],
    "disentangled": [1.79744, 0.31658, -0.1788, 0.41429, 1.18817, -4.01536, 1.25639, -1.9016],
    "stretched": [1.6425, 0.43991, 0.77277, 0.09013, -0.01751, -2.26548, -0.30446, -0.02667],
}

CHANGES: dict[str, dict[str, object]] = {
    "small": {},
    "post-norm": {
        "normformer": False,
        "encoder_normalize_before": False,
        "decoder_normalize_before": False,
        "layernorm_embedding": False,
        "patch_layernorm_embedding": False,
        "code_layernorm_embedding": False,
        "add_type_embedding": False,
    },
    "entangled": {
        "entangle_position_embedding": True,
        "share_attn_bias": True,
        "scale_embedding": True,
        "share_decoder_input_output_embed": False,
        "use_gamma_feature": True,
        "attn_scale_factor": 1.5,
        "activation_function": "relu",
        "resnet_type": "resnet50",
    },
    "disentangled": {"entangle_position_embedding": True, "disable_entangle": True},
    "stretched": {"interpolate_position": True, "orig_patch_image_size": 32},
}


@torch.no_grad()
@pytest.mark.parametrize("name", REFERENCE)
def test_logits_are_the_reference_s(name: str) -> None:
    sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 48, "token_bucket_size": 8}
    model = OfaModel(small_config(**sizes, **CHANGES[name])).eval()
    fill(model)
    inputs = formula_inputs()
    logits = model(inputs["pictures"], inputs["questions"], inputs["tokens"])
    found = torch.cat([logits[0, 0, :4], logits[1, -1, :4]])
    torch.testing.assert_close(found, torch.tensor(REFERENCE[name]), rtol=0, atol=1e-4)
