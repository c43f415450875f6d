from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unprompt.encoders.clip_tokens import clean, clip_token_counts, clip_token_ids, comma_id

PROMPTS = Path(__file__).parents[3] / "shared" / "prompts"

NASTY = [
    "",
    "   \n\t ",
    "a photo, a cat",
    "A Photo, Of A CAT.",
    "8k, 4 k, f/1.8, 35mm, (cat:1.2), [dog], {x}",
    "it's she'll they're I've I'm he'd can't IT'S",
    "Œuvre d'été, Straße, İstanbul, ΑΣΣ, naïve café",
    "水彩画の猫、桜。 ポートレート 한국어 العربية हिन्दी",
    "🎨🖌️ 👩‍👩‍👧‍👦 🇫🇷 ❤️",
    "tom &amp; jerry &amp;amp; &lt;b&gt; &quot;x&quot; &eacute; &#39; AT&T R&B",
    "line one\nline two\r\nline three\x0b\x0c tab\tend",
    "mojibake: schÃ¶n â€œquotedâ€\x9d",
    "curly ‘quotes’ “here” – dash — dash…",
    "full width ＡＢＣ １２３，。",
    "zero\u200bwidth non\u00a0breaking \u2028 \ufeff bom",
    "<start_of_text> a cat <end_of_text> <|endoftext|>",
    "\x1b[31mred\x1b[0m \x00 null",
    "ﬁne ﬂight ½ ² ①",
    "e\u0301 combining versus é",
    "a" * 300,
    "!!!!???,,,;;;:::---___***",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "<lora:thing:0.8> BREAK embedding:x",
    "1234567890 3.14159 10,000",
]


PIECES = [*"aZ09.,'’&;<>()éßİΣǅﬁ½①\u0301\u200d\u200b\u00a0\u1680\u180e\u2028\u3000\x1c\x85\x00 \n🎨👩🇫🇷画\udc80",
          "'s", "'LL", "n't", "<start_of_text>", "<end_of_text>", "start_of", "&amp;", "&nbsp;", "schÃ¶n",
          "x" * 200]  # fmt: skip
"""What a text of any kind may be put together of, to meet all rules of splitting words beside each other."""


@pytest.fixture(scope="module")
def reference() -> Callable[[str], Sequence[int]]:
    from unprompt.encoders.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    tokenizer = pytest.importorskip("open_clip.tokenizer", reason="the extra open-clip is not installed")
    encode: Callable[[str], Sequence[int]] = tokenizer.SimpleTokenizer().encode
    return encode


def test_known_ids() -> None:
    assert clip_token_ids(["a photo, a cat", ""]) == [[320, 1125, 267, 320, 2368], []]
    assert comma_id() == 267


@pytest.mark.parametrize("text", NASTY)
def test_as_open_clip_on_nasty_texts(text: str, reference: Callable[[str], Sequence[int]]) -> None:
    assert clip_token_ids([text]) == [reference(text)]


def test_as_open_clip_on_every_letter(reference: Callable[[str], Sequence[int]]) -> None:
    """Those assigned since Unicode 5: newer ones are letters to one library and not yet to another."""
    letters = [chr(code) for code in range(0x20, 0x3000) if unicodedata.ucd_3_2_0.category(chr(code)) != "Cn"]
    # A combining iota, which the reference folds to a letter, and only when it does not follow one.
    texts = ["".join(letters[i : i + 3]) for i in range(0, len(letters), 3) if "\u0345" not in letters[i : i + 3]]
    differ = [text for text, ids in zip(texts, clip_token_ids(texts), strict=True) if ids != reference(text)]
    assert differ == []


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="needs ../shared/prompts")
def test_as_open_clip_on_real_prompts(reference: Callable[[str], Sequence[int]]) -> None:
    texts = [
        json.loads(line)["prompt"]
        for path in sorted(PROMPTS.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    # All of them agree; every twelfth is enough to notice a change.
    some = texts[::12]
    assert len(some) > 5000
    differ = [text for text, ids in zip(some, clip_token_ids(some), strict=True) if ids != reference(text)]
    assert differ == []


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)))
@example("'s".join(NASTY))
def test_counts_are_those_of_the_ids(text: str) -> None:
    """Words are counted one by one; the whole text's ids are the oracle."""
    texts = [text, f"{text} {text}", "a cat"]
    assert clip_token_counts(texts) == [len(ids) for ids in clip_token_ids(texts)]


def test_counts_of_nasty_texts() -> None:
    assert clip_token_counts([*NASTY, *NASTY]) == [len(ids) for ids in clip_token_ids([*NASTY, *NASTY])]
    assert clip_token_counts([]) == []


def test_a_lone_surrogate_is_no_error() -> None:
    assert clip_token_ids(["cat \udc80"]) == clip_token_ids(["cat ?"])


def test_cleaning() -> None:
    assert clean("  Tom &amp;amp;\n JERRY ") == "tom & jerry"
    assert clean("<b>") == "<b>"


def test_loading_imports_no_torch() -> None:
    code = "import sys; from unprompt.encoders.clip_tokens import comma_id; comma_id(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
