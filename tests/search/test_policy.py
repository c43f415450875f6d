from __future__ import annotations

import numpy as np
import pytest

from unprompt.errors import QueryError
from unprompt.index.vocabulary import Stored, Vocabulary
from unprompt.search.artist_names import ArtistNames, Mention
from unprompt.search.policy import Policy
from unprompt.types import Fragment

ARTISTS = [
    Fragment("Claude Monet", "artist", born=1840, died=1926),
    Fragment("Greg Rutkowski", "artist", born=1988),
    Fragment("H. R. Giger", "artist", born=1940, died=2014),
    Fragment("Vincent van Gogh", "artist", born=1853, died=1890),
    Fragment("Van Gogh", "artist"),
    Fragment("Zdzisław Beksiński", "artist", born=1929, died=2005),
    Fragment("WLOP", "artist"),
    Fragment("Hope", "artist"),
    Fragment("Picasso", "artist", born=1881, died=1973),
]
FLAVORS = [
    "highly detailed",
    "greg rutkowski and claude monet",
    "h.r. giger style",
    "zdzislaw beksinski",
    "wlop!",
    "ray of hope",
    "style of hope",
    "hope style",
    "picasso-like",
    "monet",
    "art by nobody famous",
    "lit by candlelight",
    "vincent van gogh",
    "gregory rutkowskis",
    "grteg rutkowski!",
    "stanley kubrick",
    "rutkowski mountain light",
    "monet garden",
    "nude",
]


def vocabulary() -> Vocabulary:
    fragments = [*ARTISTS, *(Fragment(text, "flavor") for text in FLAVORS), Fragment("bad art", "negative")]
    return Vocabulary.of(fragments, np.zeros((2 * len(ARTISTS) + len(FLAVORS) + 1, 4), np.float32))


def hidden(policy: Policy, kind: str = "flavor") -> list[str]:
    made = vocabulary()
    start, stop = made.kind_ranges[kind]
    mask = policy.mask(made)
    assert mask.shape == (len(made.terms),)
    return [made.terms[row] for row in range(start, stop) if not mask[row]]


def test_any_hides_nothing() -> None:
    assert Policy().mask(vocabulary()).all()


def test_none_hides_artists_and_the_names_in_other_terms() -> None:
    assert hidden(Policy("none"), "artist") == [f"{by} {a.text}" for a in ARTISTS for by in ("by", "inspired by")]
    assert hidden(Policy("none")) == [
        "greg rutkowski and claude monet",
        "h.r. giger style",
        "zdzislaw beksinski",
        "wlop!",
        "style of hope",
        "hope style",
        "picasso-like",
        "art by nobody famous",
        "vincent van gogh",
        "gregory rutkowskis",
        "grteg rutkowski!",
        "stanley kubrick",
    ]
    assert hidden(Policy("none"), "negative") == []


def test_what_reads_like_a_name_is_hidden_among_flavors_alone() -> None:
    fragments = [*ARTISTS, Fragment("stanley kubrick", "character"), Fragment("emma watson", "flavor")]
    made = Vocabulary.of(fragments, np.zeros((2 * len(ARTISTS) + 2, 4), np.float32))
    mask = dict(zip(made.terms, Policy("none").mask(made).tolist(), strict=True))
    assert (mask["stanley kubrick"], mask["emma watson"]) == (True, False)


def test_dead_spares_those_who_are_known_to_have_died() -> None:
    spared = {"Claude Monet", "H. R. Giger", "Vincent van Gogh", "Zdzisław Beksiński", "Picasso"}
    assert {text.split("by ", 1)[1] for text in hidden(Policy("dead"), "artist")} == {
        artist.text for artist in ARTISTS
    } - spared
    # Of "vincent van gogh" the whole name counts, not the undated "Van Gogh" inside it.
    assert hidden(Policy("dead")) == [
        "greg rutkowski and claude monet",
        "wlop!",
        "style of hope",
        "hope style",
        "art by nobody famous",
        "gregory rutkowskis",
        "grteg rutkowski!",
        "stanley kubrick",
    ]


def test_forbidden_words_in_terms() -> None:
    assert hidden(Policy(forbid=("NUDE",))) == ["nude"]
    assert hidden(Policy(forbid=("candle", "Highly-Detailed"))) == ["highly detailed"]
    assert hidden(Policy(forbid=("claude monet",)), "artist") == ["by Claude Monet", "inspired by Claude Monet"]
    assert hidden(Policy("dead", forbid=("monet",)), "artist")[:2] == ["by Claude Monet", "inspired by Claude Monet"]


def test_a_deleted_artist_is_still_an_artist() -> None:
    stored = [Stored(Fragment("Ann Bell", "artist"), deleted=True), Stored(Fragment("ann bell style", "flavor"))]
    made = Vocabulary.from_stored(stored, np.zeros((2, 4), np.float32))
    assert Policy("none").mask(made).tolist() == [False, False]


def test_mentions_take_the_longest_name() -> None:
    names = ArtistNames.of(vocabulary())
    assert names.mentions("a Vincent VAN-GOGH sky and wlop") == [
        Mention(1, 4, "vincent van gogh"),
        Mention(6, 7, "wlop"),
    ]
    assert names.everyday == {"hope"}
    assert names.mentions("hope of monet, gregrutkowski") == []


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("a castle by greg rutkowski, oil painting", "a castle, oil painting"),
        ("a castle, art by Greg Rutkowski and WLOP, 8k", "a castle, 8k"),
        ("portrait of a cat in the style of Claude Monet", "portrait of a cat"),
        ("a painting by Claude Monet of a pond, soft light", "a painting of a pond, soft light"),
        ("a cat, greg rutkowski, wlop, 4k", "a cat, 4k"),
        ("a cat, stanley kubrick, grteg rutkowski, 4k", "a cat, 4k"),
        ("stanley kubrick, 4k", "stanley kubrick, 4k"),  # the first says what is shown
        ("a cat, h.r. giger style, 4k", "a cat, 4k"),
        ("portrait of picasso, 4k", "portrait, 4k"),
        ("by wlop", ""),
        ("a 3 d render of greg rutkowski on a hill, 4k", "a 3 d render on a hill, 4k"),
        ("h. r. giger alien on a 4 k screen", "alien on a 4 k screen"),
        ("a cat, art by Karl Brandt", "a cat"),
    ],
)
def test_prompts_lose_their_artists(prompt: str, cleaned: str) -> None:
    assert Policy("none").clean(prompt, ArtistNames.of(vocabulary())) == cleaned


@pytest.mark.parametrize(
    "prompt",
    [
        "a boat by the sea, lit by candlelight",
        "(a ray of hope:1.2), <lora:thing:0.8>, [night]",
        "A dog stands by a window. It is night.",
        "",
    ],
)
def test_prompts_without_artists_stay_as_they_are(prompt: str) -> None:
    assert Policy("none").clean(prompt, ArtistNames.of(vocabulary())) == prompt


def test_dead_artists_stay_in_prompts() -> None:
    names = ArtistNames.of(vocabulary())
    clean = Policy("dead").clean
    assert clean("a pond by Claude Monet and Greg Rutkowski, 4k", names) == "a pond, by Claude Monet, 4k"
    assert clean("a pond by Claude Monet, 4k", names) == "a pond by Claude Monet, 4k"
    assert clean("a pond by Karl Brandt, 4k", names) == "a pond, 4k"


def test_forbidden_words_in_prompts() -> None:
    clean = Policy(forbid=("nude", "blood stain")).clean
    assert clean("a nude woman, Blood-Stain on the floor, 4k, by wlop") == "a woman, 4k, by wlop"
    assert clean("a denuded hill, blood, stain") == "a denuded hill, blood, stain"
    assert clean("nude") == ""


def test_cleaning_twice_changes_nothing() -> None:
    names, policy = ArtistNames.of(vocabulary()), Policy("none", forbid=("night",))
    for prompt in ("a man by greg rutkowski and wlop at night, night sky", "monet's night by hope, of claude monet"):
        once = policy.clean(prompt, names)
        assert policy.clean(once, names) == once


def test_prefix_and_suffix() -> None:
    policy = Policy(prefix="mystyle woman", suffix="<lora:x:1>")
    assert policy.finish("a cat, 4k") == "mystyle woman, a cat, 4k, <lora:x:1>"
    assert policy.finish(policy.finish("a cat")) == policy.finish("a cat")
    assert policy.finish("") == "mystyle woman, <lora:x:1>"
    assert Policy().finish(" a cat ") == "a cat"


def test_what_is_no_policy() -> None:
    with pytest.raises(QueryError, match="'all': use one of any, none, dead"):
        Policy("all")
    with pytest.raises(QueryError, match="'!!'"):
        Policy(forbid=("!!",))
