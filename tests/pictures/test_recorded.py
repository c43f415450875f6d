"""Prompts that pictures carry themselves, in real files written as the programs write them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unprompt.pictures.recorded import RecordedPrompt, parse_texts, read_recorded_prompt
from unprompt.pictures.texts import decode_user_comment

A1111 = (
    "a fox, (oil painting:1.2)\nby candlelight\nNegative prompt: blurry, text\n"
    "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 12345678901, Size: 512x768, Model hash: abc, "
    'Model: v1-5, Lora hashes: "a: 1, b: 2", Version: v1.6.0'
)
SETTINGS = {"sampler": "DPM++ 2M Karras", "steps": 20, "cfg": 7.5, "seed": "12345678901", "model": "v1-5"}


def png(**texts: str) -> bytes:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key.replace("_", "-") if key == "sd_metadata" else key, value)
    return save("PNG", pnginfo=info)


def save(format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, format, **options)
    return stream.getvalue()


def user_comment(text: str, encoding: str = "utf-16-be", code: bytes = b"UNICODE\x00") -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = code + text.encode(encoding)
    return exif.tobytes()


def found(data: Any) -> RecordedPrompt:
    recorded = read_recorded_prompt(data)
    assert recorded is not None
    return recorded


def test_automatic1111_png() -> None:
    recorded = found(png(parameters=A1111))
    assert recorded.prompt == "a fox, (oil painting:1.2)\nby candlelight"
    assert recorded.generator == "AUTOMATIC1111"
    assert recorded.metadata == {**SETTINGS, "negative_prompt": "blurry, text"}
    assert type(recorded.metadata["steps"]) is int
    assert type(recorded.metadata["seed"]) is str


Image.init()
AVIF = pytest.param("AVIF", marks=pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow writes no AVIF"))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", AVIF])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_automatic1111_exif(format: str, encoding: str) -> None:
    recorded = found(save(format, exif=user_comment(A1111.replace("fox", "狐"), encoding)))
    assert recorded.prompt == "a 狐, (oil painting:1.2)\nby candlelight"
    assert recorded.metadata["steps"] == 20


def test_two_jpegs_one_after_the_other_are_not_mixed_up() -> None:
    for word in ("first", "second", "third", "fourth"):
        assert found(save("JPEG", exif=user_comment(A1111.replace("fox", word)))).prompt.startswith(f"a {word},")


@pytest.mark.parametrize("code", [b"ASCII\x00\x00\x00", b"\x00" * 8, b""])
def test_user_comments_of_other_codes(code: bytes) -> None:
    assert decode_user_comment(code + b"a plain prompt, Steps: 1") == "a plain prompt, Steps: 1"


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        (
            "a fox\nNegative prompt: a\nNegative prompt: b\nSteps: 1, Sampler: E, Seed: 3",
            "a fox",
            "a\nNegative prompt: b",
        ),
        ("a fox\nNegative prompt: a\nSteps: 1, Seed: 3", "a fox", "a"),
        ("a fox, red", "a fox, red", None),
        ("a fox\nSteps: 4, Sampler: Euler a, Seed: 9, Size: 8x8, Model: m", "a fox", None),
    ],
)
def test_parameters_that_sd_parsers_gives_up_on(text: str, prompt: str, negative: str | None) -> None:
    recorded = found(png(parameters=text))
    assert (recorded.prompt, recorded.metadata.get("negative_prompt")) == (prompt, negative)


def test_parameters_without_a_prompt_are_none() -> None:
    assert (
        read_recorded_prompt(png(parameters="Negative prompt: a\nSteps: 1, Sampler: E, CFG scale: 2, Seed: 3")) is None
    )


def graph(text: Any = "a lighthouse", **more: Any) -> dict[str, Any]:
    """An executed ComfyUI prompt."""
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
        "3": {
            "class_type": "KSampler",
            "inputs": {"seed": 42, "steps": 25, "cfg": 6.5, "sampler_name": "euler", "scheduler": "normal",
                       "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
                       "latent_image": ["5", 0]},
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a file name", "images": ["8", 0]}},
        **more,
    }  # fmt: skip


COMFY = {
    "sampler": "euler",
    "steps": 25,
    "cfg": 6.5,
    "seed": "42",
    "model": "sd.safetensors",
    "negative_prompt": "ugly",
}


def test_comfyui_png_needs_no_workflow_chunk() -> None:
    recorded = found(png(prompt=json.dumps(graph())))
    assert (recorded.prompt, recorded.generator, recorded.metadata) == ("a lighthouse", "ComfyUI", COMFY)


def test_comfyui_webp_keeps_its_graphs_in_camera_fields() -> None:
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(graph())
    exif[0x010F] = 'workflow:{"nodes": [], "links": []}'
    assert found(save("WEBP", exif=exif)).prompt == "a lighthouse"


def test_comfyui_text_from_linked_nodes() -> None:
    text = {
        "class_type": "StringConcatenate",
        "inputs": {"string_a": ["21", 0], "string_b": "at dawn", "delimiter": ", "},
    }
    source = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "a lighthouse"}}
    assert (
        found(png(prompt=json.dumps(graph(["20", 0], **{"20": text, "21": source})))).prompt == "a lighthouse, at dawn"
    )


def test_comfyui_prompt_written_by_a_language_model_is_unknown() -> None:
    writer = {"class_type": "TextGenerate", "inputs": {"prompt": "You are a helpful prompt engineer. A lighthouse."}}
    assert read_recorded_prompt(png(prompt=json.dumps(graph(["20", 0], **{"20": writer})))) is None


def test_comfyui_circles_and_doublings_end() -> None:
    circle = {"class_type": "StringConcatenate", "inputs": {"string_a": ["20", 0], "string_b": "sea"}}
    assert found(png(prompt=json.dumps(graph(["20", 0], **{"20": circle})))).prompt == "sea"
    chain = {
        str(i): {
            "class_type": "StringConcatenate",
            "inputs": {"string_a": [str(i + 1), 0], "string_b": [str(i + 1), 0]},
        }
        for i in range(100, 160)
    }
    chain["160"] = {"class_type": "PrimitiveString", "inputs": {"value": "sea"}}
    assert len(found(png(prompt=json.dumps(graph(["100", 0], **chain)))).prompt) <= 100_000


def test_invokeai() -> None:
    new = {"positive_prompt": "a harbour", "negative_prompt": "fog", "scheduler": "euler", "steps": 30, "cfg_scale": 7,
           "seed": 5, "model": {"model_name": "sdxl"}}  # fmt: skip
    recorded = found(png(invokeai_metadata=json.dumps(new)))
    assert (recorded.prompt, recorded.generator) == ("a harbour", "InvokeAI")
    assert recorded.metadata == {
        "sampler": "euler", "steps": 30, "cfg": 7.0, "seed": "5", "model": "sdxl", "negative_prompt": "fog",
    }  # fmt: skip
    del new["scheduler"]  # sd-parsers gives up without one; newer files name the model by "name"
    new["model"] = {"name": "flux"}
    recorded = found(png(invokeai_metadata=json.dumps(new)))
    assert (recorded.prompt, recorded.metadata["model"]) == ("a harbour", "flux")
    assert found(png(Dream='"a boat [people]" -s 20 -S 7 -W 512 -H 512 -C 7.5 -A k_lms')).prompt == "a boat"


def test_fooocus_novelai_and_swarmui() -> None:
    fooocus = {"prompt": "a cabin", "negative_prompt": "", "full_prompt": ["a cabin", "cinematic"], "steps": 30,
               "sampler": "dpmpp_2m", "guidance_scale": 4.0, "seed": "7", "base_model": "j", "base_model_hash": "h",
               "version": "Fooocus 2.5"}  # fmt: skip
    recorded = found(png(parameters=json.dumps(fooocus)))
    assert (recorded.prompt, recorded.generator, recorded.metadata["cfg"]) == ("a cabin", "Fooocus", 4.0)
    del fooocus["base_model_hash"]
    assert found(png(parameters=json.dumps(fooocus))).prompt == "a cabin"
    novelai = {"sampler": "k_euler", "steps": 28, "scale": 11, "seed": 9, "uc": "lowres"}
    recorded = found(
        png(Description="a witch ", Software="NovelAI", Source="Diffusion 1D4", Comment=json.dumps(novelai))
    )
    assert (recorded.prompt, recorded.metadata["negative_prompt"]) == ("a witch", "lowres")
    assert recorded.metadata["steps"] == 28
    swarm = {"sui_image_params": {"prompt": "a moth", "negativeprompt": "bug", "seed": 1, "steps": 9, "cfgscale": 1.5}}
    recorded = found(png(parameters=json.dumps(swarm)))
    assert (recorded.prompt, recorded.generator) == ("a moth", "SwarmUI")
    assert recorded.metadata == {"cfg": 1.5, "steps": 9, "seed": "1", "negative_prompt": "bug"}


@pytest.mark.parametrize("way", ["path", "string", "bytes", "picture", "image"])
def test_all_ways_to_name_a_picture(way: str, tmp_path: Path) -> None:
    from unprompt.types import Picture

    path = tmp_path / "a.png"
    path.write_bytes(png(parameters=A1111))
    with Image.open(path) as image:
        source = {
            "path": path,
            "string": str(path),
            "bytes": path.read_bytes(),
            "picture": Picture(str(path)),
            "image": image,
        }
        assert found(source[way]).prompt.startswith("a fox")


def test_text_after_the_pixels_is_found_without_decoding_them() -> None:
    data = png(parameters=A1111)
    start = data.index(b"tEXt") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    chunk = data[start : start + length]
    moved = data[:start] + data[start + length : -12] + chunk + data[-12:]
    damaged = bytearray(moved)
    damaged[moved.index(b"IDAT") + 6] ^= 0xFF
    assert found(bytes(damaged)).prompt.startswith("a fox")


def test_compressed_and_international_chunks() -> None:
    for options in ({"zip": True}, {"zip": False}):
        info = PngInfo()
        info.add_text("parameters", A1111, **options)
        assert found(save("PNG", pnginfo=info)).metadata["steps"] == 20
        info = PngInfo()
        info.add_itxt("parameters", A1111.replace("fox", "łoś"), **options)
        assert found(save("PNG", pnginfo=info)).prompt.startswith("a łoś")


def test_a_text_bomb_is_no_prompt() -> None:
    import struct
    import zlib

    body = b"parameters\x00\x00" + zlib.compress(b"a" * (17 * 2**20))
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    data = save("PNG")
    assert read_recorded_prompt(data[:33] + chunk + data[33:]) is None


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXt", save("PNG"), save("JPEG"), save("GIF")]
)
def test_no_prompt_is_none(data: bytes) -> None:
    assert read_recorded_prompt(data) is None


def test_missing_files_are_none(tmp_path: Path) -> None:
    assert read_recorded_prompt(tmp_path / "gone.png") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
KEYS = [
    "parameters",
    "prompt",
    "workflow",
    "invokeai_metadata",
    "sd-metadata",
    "Dream",
    "Comment",
    "Description",
    "Source",
]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=60) | JSON.map(json.dumps), max_size=4))
def test_any_texts_give_a_prompt_or_none(texts: dict[str, str]) -> None:
    recorded = parse_texts(texts)
    assert recorded is None or recorded.prompt.strip()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_graphs_never_raise(data: st.DataObject) -> None:
    damaged: Any = graph()
    for key in data.draw(st.lists(st.sampled_from(sorted(damaged)), max_size=3)):
        damaged[key] = data.draw(JSON | st.fixed_dictionaries({"class_type": st.text(), "inputs": JSON}))
    parse_texts({"prompt": json.dumps(damaged), "workflow": json.dumps(data.draw(JSON))})
