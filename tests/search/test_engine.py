from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fakes import FakeEncoder, colour_picture
from tiny_library import write_library
from unprompt.errors import LibraryError, QueryError
from unprompt.index.library import Library
from unprompt.pictures.opening import PictureError
from unprompt.search.engine import Engine
from unprompt.search.policy import Policy
from unprompt.search.queries import text_queries
from unprompt.search.results import QueryResult
from unprompt.search.settings import Settings
from unprompt.types import Candidate, Fragment


@pytest.fixture
def engine(library: Library, encoder: FakeEncoder) -> Engine:
    return Engine(library, encoder)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A red picture that no library holds."""
    return colour_picture(tmp_path / "red.png", "red", seed=999)


def test_a_red_picture_finds_red_things(engine: Engine, red: Path) -> None:
    [result] = engine.query(red)
    assert result.image == str(red)
    assert all(" red " in neighbour.record.prompt for neighbour in result.neighbours)
    assert [neighbour.hit.rank for neighbour in result.neighbours] == [1, 2, 3, 4, 5]
    best = result.prompts[0].prompt
    assert " red " in best
    maker = next(neighbour.hit.id for neighbour in result.neighbours if neighbour.record.prompt == best)
    assert result.prompts[0].source == f"neighbour:{maker}+prompts"
    assert result.fragments["flavor"][0].text == "vivid red"
    assert "red" in result.final.prompt.split()
    assert result.recorded is None
    [extended] = engine.query(red, settings=Settings(rerank=False))
    assert extended.final.prompt == f"{best}, vivid red"


def test_prompts_without_pictures_are_found_too(engine: Engine, red: Path) -> None:
    [result] = engine.query(red, k=40)
    assert ("red", "prompts") in [(prompt.prompt, prompt.source) for prompt in result.prompts]


def test_the_json_has_the_promised_keys(engine: Engine, red: Path) -> None:
    [result] = engine.query(red, k=2)
    answer = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert list(answer) == ["image", "final", "negative", "prompts", "neighbours", "fragments", "recorded"]
    assert list(answer["final"]) == ["prompt", "score", "parts"]
    assert {tuple(part) for part in answer["final"]["parts"]} == {("text", "source", "kind", "score", "gain")}
    assert [list(prompt) for prompt in answer["prompts"]] == [["prompt", "score", "source"]] * 2
    assert [list(found) for found in answer["neighbours"]] == [["id", "prompt", "score", "rank"]] * 2
    assert list(answer["fragments"]) == ["artist", "medium", "flavor", "negative"]
    assert [list(found) for found in answer["fragments"]["flavor"]] == [["text", "score"]] * 2
    assert answer["recorded"] is None


def test_a_picture_of_the_library_gets_its_own_prompt_unchanged(engine: Engine, pairs: list[tuple[Path, str]]) -> None:
    for result, (_, prompt) in zip(engine.query([path for path, _ in pairs]), pairs, strict=True):
        assert (result.prompts[0].prompt, result.prompts[0].score) == (prompt, 1.0)
        assert result.final.prompt == prompt
        assert [part.kind for part in result.final.parts] == ["prompt"]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_change_nothing_but_the_last_digits(
    engine: Engine, pairs: list[tuple[Path, str]], batch_size: int
) -> None:
    paths = [path for path, _ in pairs[:10]]
    together = engine.query(paths, k=3)
    results = engine.query(paths, k=3, batch_size=batch_size)
    assert [simplified(result) for result in results] == [simplified(result) for result in together]


def simplified(result: QueryResult) -> tuple[object, ...]:
    return (
        result.image,
        result.final.prompt,
        [(prompt.prompt, prompt.source, round(prompt.score, 5)) for prompt in result.prompts],
        [(neighbour.hit.id, round(neighbour.hit.score, 4)) for neighbour in result.neighbours],
    )


def test_each_picture_is_encoded_once(engine: Engine, encoder: FakeEncoder, pairs: list[tuple[Path, str]]) -> None:
    engine.query([path for path, _ in pairs[:7]], batch_size=3)
    assert encoder.images_encoded == 7


def test_pictures_are_opened_a_batch_at_a_time(library: Library, pairs: list[tuple[Path, str]]) -> None:
    opened: list[int] = []

    def paths() -> Iterator[Path]:
        for i, (path, _) in enumerate(pairs[:6]):
            opened.append(i)
            yield path

    class Watching(FakeEncoder):
        def encode_images(self, images):  # type: ignore[no-untyped-def]
            seen.append((len(images), len(opened)))
            return super().encode_images(images)

    seen: list[tuple[int, int]] = []
    Engine(library, Watching()).query(paths(), batch_size=4)
    assert seen == [(4, 4), (2, 6)]


def test_whatever_holds_the_pixels_gives_the_same_answer(engine: Engine, red: Path) -> None:
    with Image.open(red) as image:
        image.load()
    pixels = np.asarray(image)
    transparent = image.convert("RGBA")
    by_path = engine.query(str(red))[0].to_dict()
    for query in (red, image, transparent, pixels, [pixels], pixels[None]):
        [answer] = engine.query(query)
        assert {**answer.to_dict(), "image": ""} == {**by_path, "image": ""}
    assert engine.query(image)[0].image == str(red)
    assert [answer.image for answer in engine.query([pixels, pixels])] == ["image 0", "image 1"]


def test_what_is_transparent_is_white(engine: Engine) -> None:
    [result] = engine.query(Image.new("RGBA", (24, 24), (220, 30, 30, 0)))
    assert " white " in result.neighbours[0].record.prompt


def test_no_pictures_no_answers(engine: Engine) -> None:
    assert engine.query([]) == []


def test_the_prompt_that_a_picture_carries_is_shown(engine: Engine, red: Path, tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("parameters", "a scarlet square\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 24x24")
    with Image.open(red) as image:
        image.save(tmp_path / "own.png", pnginfo=text)
    [result] = engine.query(tmp_path / "own.png")
    assert result.recorded == "a scarlet square"
    assert result.to_dict()["recorded"] == "a scarlet square"


def test_kinds_are_those_asked_for_in_that_order(engine: Engine, red: Path) -> None:
    assert list(engine.query(red, kinds=["flavor", "artist"])[0].fragments) == ["flavor", "artist"]
    [without] = engine.query(red, kinds=[])
    assert without.fragments == {}
    assert len(without.final.parts) == 1


def test_the_final_prompt_does_not_depend_on_k(engine: Engine, red: Path) -> None:
    assert engine.query(red, k=1)[0].final == engine.query(red, k=5)[0].final


def test_more_than_there_is_gives_what_there_is(engine: Engine, red: Path) -> None:
    [result] = engine.query(red, k=10_000)
    assert len(result.neighbours) == 40
    assert len(result.prompts) == len({prompt.prompt for prompt in result.prompts}) == 34
    assert len(result.fragments["medium"]) == 2


def test_a_library_of_prompts_alone(encoder: FakeEncoder, red: Path, tmp_path: Path) -> None:
    library = write_library(tmp_path / "library", encoder, prompts={"a red sea": 1, "a green hill": 2})
    [result] = Engine(library, encoder).query(red)
    assert result.neighbours == ()
    best = result.prompts[0]
    assert (best.prompt, best.source, best.score) == ("a red sea", "prompts", 1.0)
    assert result.final.prompt == "a red sea"
    assert result.fragments == {}


def test_a_library_of_pictures_alone(
    encoder: FakeEncoder, pairs: list[tuple[Path, str]], red: Path, tmp_path: Path
) -> None:
    [result] = Engine(write_library(tmp_path / "library", encoder, pairs), encoder).query(red)
    assert result.final.prompt == result.prompts[0].prompt
    assert result.final.parts[0].source == result.prompts[0].source


def test_a_library_of_fragments_alone(encoder: FakeEncoder, red: Path, tmp_path: Path) -> None:
    library = write_library(
        tmp_path / "library", encoder, fragments=[Fragment("red", "flavor"), Fragment("sea", "flavor")]
    )
    [result] = Engine(library, encoder).query(red)
    assert (result.prompts, result.neighbours) == ((), ())
    assert result.final.prompt == "red"


def test_an_empty_library(encoder: FakeEncoder, red: Path, tmp_path: Path) -> None:
    [result] = Engine(write_library(tmp_path / "library", encoder), encoder).query(red)
    assert result.final == Candidate("", 0.0, ())
    assert (result.prompts, result.neighbours, result.fragments) == ((), (), {})


@pytest.mark.parametrize(("options", "words"), [
    ({"k": 0}, ["k is 0", "1 or more"]),
    ({"k": -3}, ["k is -3"]),
    ({"batch_size": 0}, ["batch size is 0"]),
    ({"kinds": ["flavor", "colour"]}, ["'colour'", "artist, medium, flavor, negative"]),
])  # fmt: skip
def test_bad_options_are_named(engine: Engine, red: Path, options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(QueryError) as error:
        engine.query(red, **options)  # type: ignore[arg-type]
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("array", [
    np.zeros((8, 8), np.uint8),
    np.zeros((8, 8, 4), np.uint8),
    np.zeros((8, 8, 3), np.float32),
    np.zeros((0, 8, 3), np.uint8),
])  # fmt: skip
def test_other_arrays_are_refused(engine: Engine, array: np.ndarray) -> None:
    with pytest.raises(QueryError, match=r"image 0 is .*\(H, W, 3\) uint8") as error:
        engine.query(array)
    assert str(array.shape) in str(error.value)


def test_other_objects_are_refused(engine: Engine) -> None:
    with pytest.raises(QueryError, match="image 0 is a int"):
        engine.query([3])  # type: ignore[list-item]


def test_an_unreadable_picture_is_named(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    for name in ("torn.png", "missing.png", "."):
        with pytest.raises(PictureError) as error:
            engine.query(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("other", [FakeEncoder(salt="-other"), FakeEncoder(dim=16)])
def test_another_encoder_than_the_librarys_is_refused(library: Library, other: FakeEncoder) -> None:
    with pytest.raises(LibraryError) as error:
        Engine(library, other)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in [str(library.path), "'fake'", "32 dimensions", repr(other.name)])


def test_the_encoder_in_the_manifest_is_loaded(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def load(name: str, *, device: str) -> FakeEncoder:
        asked.append((name, device))
        return FakeEncoder()

    monkeypatch.setattr("unprompt.search.engine.load_encoder", load)
    assert isinstance(Engine(library, device="cuda:1").encoder, FakeEncoder)
    assert asked == [("fake", "cuda:1")]


def test_importing_the_engine_is_light() -> None:
    heavy = "{'torch', 'faiss', 'pyarrow', 'sd_parsers'}"
    code = f"import sys, unprompt.search.engine; print(sorted({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == "[]"


def test_an_artist_whom_the_prompt_names_is_not_named_again(encoder: FakeEncoder, tmp_path: Path) -> None:
    library = write_library(
        tmp_path / "library",
        encoder,
        prompts={"a red sea by Claude Monet": 1},
        fragments=[Fragment("Claude Monet", "artist"), Fragment("foggy", "flavor")],
    )
    queries = text_queries(["inspired, a red foggy sea inspired by Claude Monet, inspired"], encoder)
    [result] = Engine(library, encoder).search(queries, settings=Settings(rerank=False))
    assert result.fragments["artist"][0].text == "inspired by Claude Monet"
    assert result.final.prompt == "a red sea by Claude Monet"


def test_a_prefix_longer_than_the_target_is_refused(library: Library, encoder: FakeEncoder) -> None:
    policy = Policy(prefix="very " * 100)
    with pytest.raises(QueryError, match=r"prefix and suffix alone are longer than target 'clip' holds \(75 tokens\)"):
        Engine(library, encoder).search(text_queries(["red"], encoder), settings=Settings(policy=policy))
