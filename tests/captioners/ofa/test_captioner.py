from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from small_models import picture
from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.neighbours import NeighbourMixture
from unprompt.captioners.ofa.captioner import OfaCaptioner, load
from unprompt.errors import EncoderError

IMAGES = [picture(80, 64), picture(30, 90, seed=1), picture(64, 64, seed=2)]


@pytest.fixture(scope="module")
def captioner(folder: Path) -> OfaCaptioner:
    return load(str(folder), size=64)


def test_captions_are_candidates_best_first(captioner: OfaCaptioner) -> None:
    assert captioner.name.startswith("ofa:")
    assert "/" not in captioner.name
    found = captioner.caption(IMAGES, num_beams=4, max_tokens=6)
    assert len(found) == len(IMAGES)
    for candidates in found:
        assert 1 <= len(candidates) <= 4
        scores = [candidate.score for candidate in candidates]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] <= 0
        assert len({candidate.prompt for candidate in candidates}) == len(candidates)
        for candidate in candidates:
            (part,) = candidate.parts
            assert (part.text, part.score, part.kind) == (candidate.prompt, candidate.score, "caption")
            assert part.source == f"captioner:{captioner.name}"
            assert "<s>" not in candidate.prompt
            assert "<pad>" not in candidate.prompt


def test_captions_do_not_depend_on_the_batch(captioner: OfaCaptioner, monkeypatch: pytest.MonkeyPatch) -> None:
    together = captioner.caption(IMAGES, num_beams=2, max_tokens=5)
    monkeypatch.setattr("unprompt.captioners.ofa.captioner.ROWS", 4)
    for first, second in zip(together, captioner.caption(IMAGES, num_beams=2, max_tokens=5), strict=True):
        assert [each.prompt for each in first] == [each.prompt for each in second]
        assert [each.score for each in first] == pytest.approx([each.score for each in second], abs=1e-5)
    assert captioner.caption([], num_beams=2, max_tokens=5) == []


def test_a_caption_s_score_is_its_mean_log_probability(captioner: OfaCaptioner) -> None:
    (candidates,) = captioner.caption(IMAGES[:1], num_beams=1, max_tokens=1)
    model, tokenizer = captioner.model, captioner.tokenizer
    question = torch.tensor([tokenizer.encode(" what does the image describe?")])
    logits = model(captioner.pictures(IMAGES[:1]), question, torch.tensor([[tokenizer.bos]]))[0, 0]
    allowed = logits.log_softmax(dim=0)
    allowed[[tokenizer.bos, tokenizer.pad, tokenizer.eos]] = -torch.inf
    assert candidates[0].score == pytest.approx(float(allowed.max()), abs=1e-5)
    assert candidates[0].prompt == tokenizer.decode([[int(allowed.argmax())]])[0]


def test_neighbours_change_what_is_written(folder: Path) -> None:
    captioner = load(str(folder), size=64, mixture=NeighbourMixture(share=0.99, min_order=0))
    told = [["a photo of a cat"]] * len(IMAGES)
    found = captioner.caption(IMAGES, num_beams=3, max_tokens=8, neighbours=told)
    assert [candidates[0].prompt for candidates in found] == ["a photo of a cat"] * len(IMAGES)
    alone = captioner.caption(IMAGES, num_beams=3, max_tokens=8)
    assert [candidates[0].prompt for candidates in alone] != ["a photo of a cat"] * len(IMAGES)


def test_pictures_are_squashed_and_normalised_as_in_training(captioner: OfaCaptioner) -> None:
    image = picture(90, 50, seed=3)
    resized = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float64)
    expected = (resized / 255 - 0.5) / 0.5
    found = captioner.pictures([image])
    assert (found.shape, found.dtype) == ((1, 3, 64, 64), torch.float32)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_any_mode_are_read(captioner: OfaCaptioner, mode: str) -> None:
    assert captioner.pictures([Image.new(mode, (20, 33))]).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0, "max_tokens": 5}, "num_beams is 0"),
        ({"num_beams": 1, "max_tokens": 0}, "max_tokens is 0"),
        ({"num_beams": 1, "max_tokens": 1025}, "max_tokens is 1025: OFA reads 1024 at most"),
        ({"num_beams": 1, "max_tokens": 5, "neighbours": [["a cat"]]}, "1 lists of neighbours for 3 pictures"),
    ],
)
def test_what_cannot_be_done_is_refused(captioner: OfaCaptioner, options: dict[str, object], message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        captioner.caption(IMAGES, **options)  # type: ignore[arg-type]


def test_a_vocabulary_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocabulary["more"] = len(vocabulary)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(CaptionerError, match=r"its vocabulary with codes and bins \d+: give the vocab\.json"):
        load(str(tmp_path))


def test_a_folder_of_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip"}))
    with pytest.raises(CaptionerError, match="of a 'blip' model"):
        load(str(tmp_path))
    with pytest.raises(EncoderError, match="there is no folder"):
        load(str(tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["tiny", "OFA-Sys/ofa-tiny"])
def test_a_hub_name_without_cache_or_network_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        EncoderError, match="'OFA-Sys/ofa-tiny' is not in the cache and HF_HUB_OFFLINE is set"
    ) as raised:
        load(name)
    assert "\n" not in str(raised.value)


def test_importing_the_package_is_light() -> None:
    code = "import unprompt.captioners.ofa, sys; assert not {'torch', 'tokenizers', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
