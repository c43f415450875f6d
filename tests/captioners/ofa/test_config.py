from __future__ import annotations

from typing import Any

import pytest

from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.ofa.config import SIZES, OfaConfig, picture_size


def test_the_official_defaults_are_taken() -> None:
    config = OfaConfig.from_dict({"model_type": "ofa", "d_model": 256, "encoder_attention_heads": 4, "dropout": 0.1})
    assert (config.d_model, config.vocab_size, config.image_bucket_size) == (256, 59457, 42)
    assert config.attn_scale_factor == 2.0
    assert config.normformer
    assert config.resnet_type == "resnet101"


def test_a_configuration_survives_being_written() -> None:
    config = OfaConfig(d_model=64, normformer=False, resnet_type="resnet18", attn_scale_factor=1.5)
    assert OfaConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "config.json is of a 'bart' model"),
        ({"use_ofasys": True}, "OFA with use_ofasys=True is not supported"),
        ({"use_image_feature": False}, "OFA with use_image_feature=False"),
        ({"exclude_mlp": False}, "OFA with exclude_mlp=False"),
        ({"resnet_type": "resnet9"}, "OFA's resnet_type 'resnet9' is none of resnet18"),
        ({"activation_function": "silu"}, "OFA's activation_function 'silu' is none of gelu"),
        ({"d_model": "256"}, "OFA's d_model is '256': config.json needs int"),
        ({"encoder_layers": 0}, "OFA's encoder_layers is 0: give more than 0"),
        ({"attn_scale_factor": -1.0}, "OFA's attn_scale_factor is -1.0"),
        ({"decoder_attention_heads": 7}, "does not divide into 7 heads"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptionerError) as raised:
        OfaConfig.from_dict({"model_type": "ofa", **change})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_pictures_are_as_large_as_the_sizes_were_trained_with() -> None:
    sizes = {name: picture_size(config) for name, config in SIZES.items()}
    assert sizes == {"tiny": 256, "medium": 256, "base": 384, "large": 480, "huge": 480}
