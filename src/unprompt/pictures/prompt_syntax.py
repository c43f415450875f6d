"""The notations of Stable Diffusion and Midjourney prompts, taken out: what remains is words and commas.

AUTOMATIC1111's weights, prompt editing, alternation and tags; ComfyUI's embeddings; NovelAI's and dynamic prompts'
braces; Midjourney's flags and weights. DiffusionDB's prompts passed a tokenizer that put blanks around punctuation
("( ( ( gold ) ) )", "- - ar 1 6 : 9"), so every notation is also known in that spelling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_FULL_WIDTH = str.maketrans("，、；｜：（）［］｛｝【】。\u3000", ",,;|:()[]{}[]. ", "\ufeff\u200b\u200c\u200d\u2060")
_MAX_ALTERNATIVES = 16
"""Alternation that has more, nested ones multiplied, is read as a plain list: writing it out could take forever."""

_NUMBER = r"[-+]?(?:\d+(?:\s?\.\s?\d*)?|\.\s?\d+)"
_DECIMAL = r"[-+]?\d*\s?\.\s?\d+"
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_TAG = re.compile(r"<\s*(?:lora|lyco|loha|locon|lokr|dora|hypernet|embedding|ti)\s*:[^<>]*>", re.IGNORECASE)
_EMBEDDING = re.compile(rf"(?<!\w)embedding:[\w./\\-]+(?::{_NUMBER})?", re.IGNORECASE)
_ESCAPED = re.compile(r"\\[()\[\]{}]")
_FLAG_NAMES = (
    "ar|aspect|chaos|c|creative|cref|cw|height|hd|h|iw|no|niji|profile|quality|q|repeat|seed|sref|stop|stylize|style|"
    "sw|sv|sameseed|s|test|testp|tile|uplight|upbeta|upanime|video|version|vibe|v|weird|width|w|fast|turbo|relax|raw"
)
# What --no names is not in the picture, so its words go with it, up to the next flag.
_FLAG_NO = re.compile(r"(?:(?<!-)--|(?<!\S)(?:- -|[—–])\s?)no(?:\s(?:(?!--|- -|—|–).)*|$)", re.IGNORECASE)
_FLAG = re.compile(
    rf"(?:(?<!\S)--[a-z]\w*|(?<!-)--(?:{_FLAG_NAMES})(?!\w)|(?<!\S)(?:- -|[—–])\s?(?:{_FLAG_NAMES})(?!\w))"
    r"(?:\s+(?:raw|4[abc]|random|https?://\S+|\d[\d\s.:x/]*(?![^\s,;|)\]}])))?",
    re.IGNORECASE,
)
# With a blank before it a number is the weight only where nothing follows: ":: 64 megapixels".
_WEIGHT_SEPARATOR = re.compile(rf":\s?:+(?:{_NUMBER}(?!\w)|\s?{_NUMBER}(?=\s*(?:[,;|:]|$)))?")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_EDITING = re.compile(rf"^(.*):\s*{_NUMBER}\s*$", re.DOTALL)
_HELD = re.compile("\x00(\\d+)\x00")
_WEIGHT_INSIDE = re.compile(rf"(?:(?<!\d)\s*:\s*{_NUMBER}|\s*:\s*{_DECIMAL})\s*(?=[)\]}}])")
_NEXT_TO = re.compile(r"[)\]}]\s*[(\[{]")
_BRACKETS = re.compile(r"[()\[\]{}<>\\]")
_BREAK = re.compile(r"(?<!\S)BREAK(?!\S)")
_AND = re.compile(r"(?<!\S)(?:(?P<before>\S+)\s+)?AND(?!\S)(?=\s*(?P<after>\S*))")
# A comma inside "10,000" parts nothing; a full stop parts sentences, but not the initials of a name.
_MARKS = r"(?<!\d),|,(?!\d{3}(?!\w))|[;|\n\r\v\f\u0085\u2028\u2029]"
_PIECES = re.compile(_MARKS)
_SEPARATORS = re.compile(_MARKS + r"|(?<=[^\W\d_]{3})\s?\.+\s+(?=\S)")
_ABBREVIATION = re.compile(
    r"(?:^|\W)(?:etc|vol|feat|approx|inc|ltd|esp|prof|gen|sgt|col|capt|rev|fig|chas|geo|robt|\w+sz)$", re.I
)
_WEIGHT_AT_END = re.compile(rf"(?:(?<!\d):{_NUMBER}|\s*:\s*{_DECIMAL})\s*$")
_DIGITS = re.compile(r"\d,\d")
_EDGES = " \t.,;:!?*~_=`-–—\x00"
_SPECIAL = re.compile(r"[^\w\s,'\"&.!?-]|- -|--|BREAK|AND|\.\s|[\x00-\x08\x0e-\x1f]|[\n\r\v\f\u0085\u2028\u2029]")


def plain_fragments(prompt: str) -> list[str]:
    """Takes a prompt apart at everything that parts it and takes its notation out.

    Returns:
        The fragments in their order, blanks collapsed, none empty, without brackets, weights, tags and flags. Taking
        ``", ".join`` of them apart again gives the same fragments.
    """
    text = prompt.translate(_FULL_WIDTH)
    if not _SPECIAL.search(text):
        return _cut(text) if _DIGITS.search(text) else _clean(text.split(","))
    # Taking one notation out may bring the halves of another together.
    for _ in range(10):
        text, before = ", ".join(fragments := _cut(_without_notation(text))), text
        if text == before:
            break
    return fragments


def _without_notation(text: str) -> str:
    text = _CONTROL.sub("", text)
    text = _EMBEDDING.sub(" ", _TAG.sub(" ", text))
    text = _ESCAPED.sub(" ", text)
    text = _FLAG.sub(", ", _FLAG_NO.sub(", ", text))
    text = _WEIGHT_SEPARATOR.sub(",", text)
    if "[" in text or "{" in text:
        text = _write_out(text.replace("{", "[").replace("}", "]"))
    text = _NEXT_TO.sub(",", _WEIGHT_INSIDE.sub("", text))
    text = _BREAK.sub(",", _BRACKETS.sub(" ", text))
    return _AND.sub(_part_at_and, text) if "AND" in text else text


def _part_at_and(match: re.Match[str]) -> str:
    """AND composes prompts, but in "BLACK AND WHITE" it is a word among others in capitals."""
    before = match["before"] or ""
    return match[0] if before.isupper() and match["after"].isupper() else f"{before}, "


def _cut(text: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    for match in _SEPARATORS.finditer(text):
        if "." in match[0] and _ABBREVIATION.search(text[max(start, match.start() - 8) : match.start()]):
            continue
        pieces.append(text[start : match.start()])
        start = match.end()
    return _clean([*pieces, text[start:]])


def _clean(pieces: Sequence[str]) -> list[str]:
    return [text for piece in pieces if (text := _trim(piece))]


def _trim(piece: str) -> str:
    """Collapses blanks and takes weights and loose punctuation off the ends; empty when no word or symbol is left."""
    text, before = " ".join(piece.split()), ""
    while text != before and ":" in text:
        text, before = _WEIGHT_AT_END.sub("", text.rstrip(_EDGES)), text
    text = text.strip(_EDGES)
    return text if any(character.isalnum() or ord(character) > 0x2000 for character in text) else ""


def _write_out(text: str) -> str:
    """Writes out alternation ``[a|b]``, ``{a|b}`` and editing ``[from:to:0.5]``: "a [red|blue] cat" says two cats.

    Several alternations in one fragment advance together, as they do from step to step while sampling. A group with
    one reading becomes round brackets.
    """
    groups: list[list[str]] = []

    def hold(match: re.Match[str]) -> str:
        readings = _readings(match[1])
        if len(readings) < 2:
            return f"({readings[0] if readings else ''})"
        if len(readings) * max(_count(reading, groups) for reading in readings) > _MAX_ALTERNATIVES:
            return f"({','.join(readings)})"
        groups.append(readings)
        return f"\0{len(groups) - 1}\0"

    while (held := _GROUP.sub(hold, text)) != text:
        text = held
    if not groups:
        return text
    written: list[str] = []
    for piece in _PIECES.split(text):
        readings = [_render(piece, i, groups) for i in range(_count(piece, groups))]
        written += dict.fromkeys(readings)
    return ", ".join(written)


def _readings(inside: str) -> list[str]:
    """What stands in a pair of square brackets, one reading for each alternative; empty ones are left out."""
    parts = inside.split("|")
    if len(parts) == 1 and (editing := _EDITING.match(inside)):
        parts = editing[1].split(":") if editing[1].count(":") == 1 else [inside]
    return [part for part in parts if part.strip()]


def _count(text: str, groups: Sequence[Sequence[str]]) -> int:
    """How many readings a text with held groups has."""
    return max(
        (len(groups[int(i)]) * max(_count(part, groups) for part in groups[int(i)]) for i in _HELD.findall(text)),
        default=1,
    )


def _render(text: str, i: int, groups: Sequence[Sequence[str]]) -> str:
    """The ith reading: a group takes its part ``i % n``, and the groups inside that part their reading ``i // n``."""

    def chosen(match: re.Match[str]) -> str:
        group = groups[int(match[1])]
        return _render(group[i % len(group)], i // len(group), groups)

    return _HELD.sub(chosen, text)
