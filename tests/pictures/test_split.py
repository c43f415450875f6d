"""Splitting prompts: hand-worked cases, properties, and every prompt of the shared lists."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unprompt.pictures.names import bare_artist, is_person_like, name_key, name_keys
from unprompt.pictures.split import split_prompt, subject_of, tagged_fragments

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not (SHARED / "prompts").is_dir(), reason="needs the prompt lists in ../shared")

ARTISTS = name_keys(["Claude Monet", "Brian and Wendy Froud", "Greg Rutkowski", "wlop", "Rhads", "John Singer Sargent"])


@pytest.mark.parametrize(
    ("prompt", "fragments"),
    [
        ("a cat, blue sky ,, oil on canvas,", ["a cat", "blue sky", "oil on canvas"]),
        ("猫，蓝天、画；夜｜山", ["猫", "蓝天", "画", "夜", "山"]),
        ("a cat | a dog; a bird\na fish\r\na cow", ["a cat", "a dog", "a bird", "a fish", "a cow"]),
        ("a cat BREAK a dog AND a bird", ["a cat", "a dog", "a bird"]),
        ("BLACK AND WHITE, black and white, Rock and Roll", ["BLACK AND WHITE", "black and white", "Rock and Roll"]),
        ("(a cat:1.2), ((sharp)), [[dull]], (((a, b)):1.3)", ["a cat", "sharp", "dull", "a", "b"]),
        ("( ( ( intricate ) gold details ) ), x", ["intricate gold details", "x"]),
        ("a ((fractal:1.1)) cube, cat:1.2, dog :0.8", ["a fractal cube", "cat", "dog"]),
        ("a cat::2 a dog::-.5 a bird : : ink", ["a cat", "a dog", "a bird", "ink"]),
        ("a cat :: 2, 64 mm :: 64 megapixels", ["a cat", "64 mm", "64 megapixels"]),
        ("16:9, at 10:30 pm, ratio 3:4, Scene: 3 cats", ["16:9", "at 10:30 pm", "ratio 3:4", "Scene: 3 cats"]),
        (r"saber \(fate\), smile", ["saber fate", "smile"]),
        ("[fantasy:cyberpunk:0.5] city", ["fantasy city", "cyberpunk city"]),
        ("a [hat:10] man [tie::0.5]", ["a hat man tie"]),
        ("a [red|blue] cat, sky", ["a red cat", "a blue cat", "sky"]),
        ("{a|b} of [x|[y|z]]", ["a of x", "b of y", "b of z"]),
        ("[red, big|blue] cat", ["red", "big cat", "blue cat"]),
        ("a cat <lora:cats:0.8>, <hypernet:x:1> <lyco:y> ink, embedding:easy:1.1", ["a cat", "ink"]),
        ("a castle --ar 16:9 --v 5.2 --style raw --no people, cars --tile", ["a castle"]),
        ("a castle--ar 16:9, a well--known man", ["a castle", "a well--known man"]),
        ("a castle - - ar 1 6 : 9", ["a castle"]),
        ("a castle —ar 16:9 --hd, ink", ["a castle", "ink"]),
        ("((a cat, [dull, {x", ["a cat", "dull", "x"]),
        ("lighting))), ] mist", ["lighting", "mist"]),
        ("a knight (red) (gold)", ["a knight red", "gold"]),
        ("10,000 cats. Blue sky. 1,5", ["10,000 cats", "Blue sky", "1", "5"]),
        ("vol. 3, dr. strange, mt. fuji", ["vol. 3", "dr. strange", "mt. fuji"]),
        ("front!!! shot, ugly!!!!", ["front!!! shot", "ugly"]),
        ("<blender 3d> toy", ["blender 3d toy"]),
        ("a\x00 cat\u200b", ["a cat"]),
        ("", []),
        (" ,;|()[]:1.2 <lora:a:1> --ar 1:1 BREAK", []),
    ],
)
def test_notation(prompt: str, fragments: list[str]) -> None:
    assert split_prompt(prompt) == fragments


@pytest.mark.parametrize(
    ("prompt", "fragments"),
    [
        ("art by A, B and C, ink", ["by A", "by B", "by C", "ink"]),
        ("in the style of A and B", ["by A", "by B"]),
        ("a cat by Greg Rutkowski and Artgerm, oil", ["a cat", "by Greg Rutkowski", "by Artgerm", "oil"]),
        ("art by artgerm, greg rutkowski and alphonse mucha, black and white",
         ["by artgerm", "by greg rutkowski", "by alphonse mucha", "black and white"]),
        ("by greg rutkowski, castle walls and stone towers", ["by greg rutkowski", "castle walls and stone towers"]),
        ("by A, B, and C", ["by A", "by B", "by C"]),
        ("art by H. R. Giger & J.C. Leyendecker", ["by H. R. Giger", "by J.C. Leyendecker"]),
        ("by rebecca guay and by john william waterhouse", ["by rebecca guay", "by john william waterhouse"]),
        ("by greg rutkowski trending on artstation", ["by greg rutkowski", "trending on artstation"]),
        ("oil by mark brooks and brad kunkle detailed", ["oil", "by mark brooks", "by brad kunkle", "detailed"]),
        ("inspired by [thomas kinkade] and mark keathley", ["inspired by thomas kinkade", "inspired by mark keathley"]),
        ("painted by vincent van gogh", ["painted by vincent van gogh"]),
        ("poster by Ilya Kuvshinov: By Hans Arp", ["poster", "by Ilya Kuvshinov", "by Hans Arp"]),
        ("by George Barret, Jr., ink", ["by George Barret Jr", "ink"]),
        ("style of Slim Aarons, woman", ["by Slim Aarons", "woman"]),
        ("in the style of film noir", ["in the style of film noir"]),
        ("a house by grant wood", ["a house", "by grant wood"]),
        ("a man by the sea, lit by candles", ["a man by the sea", "lit by candles"]),
        ("a forest surrounded by mist, one by one", ["a forest surrounded by mist", "one by one"]),
        ("a bus parked by a building by night", ["a bus parked by a building by night"]),
    ],
)  # fmt: skip
def test_credits(prompt: str, fragments: list[str]) -> None:
    assert split_prompt(prompt) == fragments


@pytest.mark.parametrize(
    ("prompt", "without", "known"),
    [
        ("by brian and wendy froud", ["by brian", "by wendy froud"], ["by brian and wendy froud"]),
        ("by greg rutkowski, rhads, ink", ["by greg rutkowski", "rhads", "ink"],
         ["by greg rutkowski", "by rhads", "ink"]),
        ("ink, wlop and rhads", ["ink", "wlop and rhads"], ["ink", "by wlop", "by rhads"]),
        ("by monty claude monet rhads", ["by monty claude monet rhads"], ["by monty", "by claude monet", "by rhads"]),
    ],
)  # fmt: skip
def test_a_vocabulary_makes_names_sure(prompt: str, without: list[str], known: list[str]) -> None:
    assert split_prompt(prompt) == without
    assert split_prompt(prompt, ARTISTS) == known


def test_tagged_fragments_say_which_are_artists() -> None:
    assert tagged_fragments("a house by the sea by Claude Monet") == [
        ("a house by the sea", False),
        ("by Claude Monet", True),
    ]


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("portrait of a cat by Claude Monet, oil on canvas", "portrait of a cat"),
        ("style of Slim Aarons, woman", "woman"),
        ("style of Slim Aarons, city or village or landscape", "city or village or landscape"),
        ("portrait, Cel Shading", "portrait"),
        ("dog by Alma Thomas", "dog"),
        ("masterpiece, best quality, (1girl:1.2), red hair, highly detailed", "1girl, red hair"),
        ("a meadow with a lake, red grass, artstation, a cat", "a meadow with a lake, red grass"),
        ("A model train on a bridge, decorated with lights.", "A model train on a bridge, decorated with lights"),
        ("digital painting, highly detailed", "digital painting"),
        ("by Claude Monet", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_subject(prompt: str, subject: str) -> None:
    assert subject_of(prompt) == subject


def test_names_meet_whatever_their_spelling() -> None:
    assert name_key("H. R. Giger") == name_key("hr giger") == "hr giger"
    assert name_key("Zdzisław Beksiński") == name_key("zdzisław beksinski")
    assert name_key("jean - baptiste monge") == name_key("Jean-Baptiste Monge")
    assert name_key("Georgia O’Keeffe") == name_key("georgia o'keeffe")


def test_credits_come_off_names() -> None:
    forms = (
        "{}",
        "by {}",
        "By  {}",
        "art by {}",
        "inspired by {}",
        "in the style of {}",
        "style of {}",
        "painted by {}",
    )
    assert {bare_artist(form.format("Odd Nerdrum")) for form in forms} == {"Odd Nerdrum"}
    assert bare_artist("Byron Galvez") == "Byron Galvez"


def test_persons_are_told_by_given_names() -> None:
    assert is_person_like("james gurney")
    assert not is_person_like("james")
    assert not is_person_like("sharp focus")
    assert not is_person_like("rose garden at night")


_PIECES = st.sampled_from(
    ["(", ")", "[", "]", "{", "}", "|", ":", "::", ":1.2", ":0.5", ",", ";", "\n", ". ", " ", "cat", "dog", "by", "By",
     "and", "art by", "A", "B", "AND", "BREAK", "&", "Greg", "greg rutkowski", "alphonse mucha", "claude monet",
     "the elder", "in the style of", "style of", "<lora:x:1>", "<", ">", "embedding:foo", "--ar 16:9", "--no text",
     "- - ar 1 6 : 9", "--", "-", "—v 5", "\\(", "\\)", "1", "0.5", "10,000", "jr.", "h. r.", "detailed", "inspired by",
     "painted", "van",
     "!", "'", "\x00", "\u3000", "，", "（", "猫", "🐱", "Studio Ghibli", "etc. ", "+", "_", "*", "İ"]
)  # fmt: skip
_PROMPTS = st.tuples(st.lists(_PIECES, max_size=14), st.sampled_from(["", " "])).map(
    lambda parts: parts[1].join(parts[0])
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_PROMPTS | st.text(max_size=40), st.sampled_from([frozenset(), ARTISTS]))
def test_fragments_are_plain_and_split_no_further(prompt: str, artists: frozenset[str]) -> None:
    fragments = split_prompt(prompt, artists)
    assert split_prompt(", ".join(fragments), artists) == fragments
    for fragment in fragments:
        assert fragment == " ".join(fragment.split())
        assert fragment
        assert not re.search(r"[()\[\]{}<>\\|;，（）]|:\s*\d*\.\d+$|<lora|--ar", fragment)


_WORDS = st.sampled_from(
    [
        "cat",
        "dog",
        "and",
        "black",
        "white",
        "rock",
        "roll",
        "red",
        "(x)",
        "[y]",
        "(z:1.2)",
        ",",
        "|",
        ";",
        "by-product",
        "standby",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_WORDS, max_size=20))
def test_no_word_is_lost(words: list[str]) -> None:
    expected = re.findall(r"[a-z-]+", " ".join(words))
    assert re.findall(r"[a-z-]+", " ".join(split_prompt(" ".join(words)))) == expected


@pytest.mark.parametrize(
    "hostile",
    ["[" * 9000, "[a|" * 3000, "[a|b]" * 3000, "(" * 5000 + ")" * 5000, "[" * 2000 + "]" * 2000, "by a and " * 3000,
     "style of " * 3000, "AND " * 9000, "--no " * 5000, ": " * 9000, "<lora:" * 5000, "by x and y, " * 2000,
     "--a" + " 1" * 9000 + "x"],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_hostile_prompts_take_no_long_time(hostile: str) -> None:
    started = time.process_time()
    split_prompt(hostile)
    assert time.process_time() - started < 3


@needs_shared
def test_all_shared_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [
        json.loads(line)["prompt"]
        for path in sorted((SHARED / "prompts").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    started = time.process_time()
    split = [split_prompt(prompt) for prompt in prompts]
    seconds = time.process_time() - started
    with capsys.disabled():
        print(f"\nsplit {len(prompts):,} prompts into {sum(map(len, split)):,} fragments in {seconds:.1f} s of CPU")
    assert all(fragments for prompt, fragments in zip(prompts, split, strict=True) if re.search(r"[^\W_]", prompt))
    for prompt, fragments in zip(prompts[::20], split[::20], strict=True):
        assert split_prompt(", ".join(fragments)) == fragments, prompt
        assert not any(re.search(r"[()\[\]{}|<>]", fragment) for fragment in fragments), prompt


@needs_shared
def test_artists_that_no_word_list_was_made_of_are_found() -> None:
    artists = json.loads((SHARED / "vocabulary" / "artists_supagruen.json").read_text(encoding="utf-8"))
    names = [artist["prompt"].removeprefix("style of ").split(",")[0].split("(")[0].strip() for artist in artists]
    right = [
        name for name in names if split_prompt(f"a house by {name.lower()}, ink")[1] == f"by {name.lower()}".rstrip(".")
    ]
    assert len(right) >= 0.98 * len(names), sorted(set(names) - set(right))
