"""Lists of fragments in all their forms, and clip-interrogator's caches."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from unprompt.builders.fragments import ci_labels, read_ci_cache, read_fragments
from unprompt.builders.fragments.tables import first_name_first
from unprompt.errors import SourceError
from unprompt.types import Fragment

SHARED = Path(__file__).parents[3] / "shared" / "vocabulary"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the vocabularies in ../shared")
needs_ci = pytest.mark.skipif(importlib.util.find_spec("clip_interrogator") is None, reason="needs clip-interrogator")


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_text_file_of_terms(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = write(tmp_path, "flavors.txt", "\ufeffsoft light\r\n\n  soft   light \nred\x00sky\n\x00\n")
    with caplog.at_level(logging.INFO):
        fragments = read_fragments(spec)
    assert fragments == [Fragment("soft light", "flavor", "flavors.txt"), Fragment("red sky", "flavor", "flavors.txt")]
    assert "2 blank and 1 repeated terms left out" in caplog.text


def test_artists_become_bare_names_once(tmp_path: Path) -> None:
    lines = ["by Claude Monet", "inspired by Claude Monet", "Claude Monet", "art by wlop", "in the style of Hans Arp"]
    spec = write(tmp_path, "artists.txt", "\n".join(lines))
    assert [f.text for f in read_fragments(spec)] == ["Claude Monet", "wlop", "Hans Arp"]
    assert [f.text for f in read_fragments(spec, "flavor")] == lines


def test_the_namespace_of_a_call_stands_over_that_of_the_file(tmp_path: Path) -> None:
    spec = write(tmp_path, "a.csv", "text,kind,namespace\nred,colour,mine\nblue,colour,\n")
    assert [f.namespace for f in read_fragments(spec)] == ["mine", "stock"]
    assert [f.namespace for f in read_fragments(spec, namespace="yours")] == ["yours", "yours"]


def test_a_text_in_two_kinds_or_namespaces_is_two_fragments(tmp_path: Path) -> None:
    spec = write(tmp_path, "a.csv", "text,kind,namespace\nx,a,\nx,b,\nx,a,mine\nx,a,\n")
    assert [(f.kind, f.namespace) for f in read_fragments(spec)] == [("a", "stock"), ("b", "stock"), ("a", "mine")]


def test_csv_holds_years_and_counts(tmp_path: Path) -> None:
    spec = write(
        tmp_path, "a.csv", "Text,Kind,Count,Born,Died,Source\nBy Monet,artist,7,1840,1926,mine\nwlop,artist,,,,\n"
    )
    assert read_fragments(spec) == [
        Fragment("Monet", "artist", "mine", 7, "stock", 1840, 1926),
        Fragment("wlop", "artist", "a.csv"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tsv", "art\t533\nconcept art\t151\n", [("art", 533), ("concept art", 151)]),
        ("a.csv", "keyword,count\nart,46\n", [("art", 46)]),
        ("a.csv", "8k,224\n", [("8k", 224)]),
        ("a.csv", "phrase,score\n\"a, b\",0.5\n", [("a, b", 0)]),
        ("a.json", '["art", "ink", ""]', [("art", 0), ("ink", 0)]),
        ("a.json", '[{"term": "art", "count": 3}]', [("art", 3)]),
    ],
)  # fmt: skip
def test_counts_in_many_forms(tmp_path: Path, name: str, content: str, expected: list[tuple[str, int]]) -> None:
    fragments = read_fragments(write(tmp_path, name, content), "flavor")
    assert [(f.text, f.count) for f in fragments] == expected
    assert {f.kind for f in fragments} <= {"flavor"}


def test_tables_of_artists_need_no_kind(tmp_path: Path) -> None:
    csv = write(tmp_path, "a.csv", "artist,score,category\nPeter Max,0.99,weird\n")
    assert read_fragments(csv) == [Fragment("Peter Max", "artist", "a.csv")]
    json = write(
        tmp_path, "b.json", '[{"name": "Aarons, Slim", "born": "1916", "death": "2006"}, {"name": "Zupa", "born": ""}]'
    )
    assert read_fragments(json) == [
        Fragment("Slim Aarons", "artist", "b.json", born=1916, died=2006),
        Fragment("Zupa", "artist", "b.json"),
    ]


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ("Aarons, Slim", "Slim Aarons"),
        ("Ord, Edward Otho, II", "Edward Otho Ord II"),
        ("Bosschaert, Ambrosius (the Elder)", "Ambrosius Bosschaert the Elder"),
        ("Rhads (Artem Chebokha)", "Rhads"),
        ("Studio Ghibli", "Studio Ghibli"),
    ],
)
def test_last_names_come_last(listed: str, name: str) -> None:
    assert first_name_first(listed) == name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "a\n", "does not say what its terms are; give --kind"),
        ("t.csv", "word,kind\na,b\n", "has no column 'text' among"),
        ("t.csv", "text\na\n", "line 2 has no kind"),
        ("t.csv", "text,kind,count\na,b,many\n", "line 2 has count 'many', expected a whole number"),
        ("t.csv", "text,kind,born\na,b,c. 1480\n", "line 2 has born 'c. 1480', expected a whole number"),
        ("t.csv", "", "has no column 'text'"),
        ("t.csv", b"text,kind\n\xff,b\n", "is not utf-8 text"),
        ("artists.txt", b"\xff\xfea\0", "is not utf-8 text"),
        ("t.json", "{", "is not JSON"),
        ("t.json", '{"a": 1}', "holds a JSON dict where a list"),
        ("t.json", "[1]", "item 1 is a JSON int"),
        ("t.json", '[{"what": "x", "kind": "flavor"}]', "item 1 has none of the columns"),
        ("t.json", b'["\xff"]', "is not utf-8 text"),
    ],
)
def test_bad_lists_are_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_fragments(write(tmp_path, name, content))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(SourceError, match=r"nowhere.txt is neither a file nor one of the packages clip-interrogator"):
        read_fragments("nowhere.txt")


def test_the_package_s_lists_are_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "clip_interrogator" / "data"
    data.mkdir(parents=True)
    (tmp_path / "clip_interrogator" / "__init__.py").write_text("raise RuntimeError('imported')")
    write(data, "artists.txt", "A. Painter\nA. Painter\n")
    write(data, "mediums.txt", "ink\n\n")
    write(data, "readme.txt", "no list\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "clip_interrogator", raising=False)
    fragments = read_fragments("clip-interrogator", namespace="ci")
    assert fragments[:2] == [
        Fragment("A. Painter", "artist", "clip-interrogator", namespace="ci"),
        Fragment("ink", "medium", "clip-interrogator", namespace="ci"),
    ]
    assert {f.kind for f in fragments[2:]} == {"trending"}
    assert "clip_interrogator" not in sys.modules


@needs_ci
def test_clip_interrogator_s_lists_hold_each_artist_once() -> None:
    fragments = read_fragments("clip-interrogator")
    artists = [f.text for f in fragments if f.kind == "artist"]
    assert len(artists) == len(set(artists)) == 5265
    assert "Claude Monet" in artists
    assert not [text for text in artists if text.lower().startswith(("by ", "inspired by"))]
    assert sum(f.kind == "trending" for f in fragments) == 72


@needs_shared
@pytest.mark.parametrize(
    ("name", "kind", "rows"),
    [
        ("artists_supagruen.json", None, 902),
        ("artists_scored_camenduru.csv", None, 3040),
        ("diffusiondb_phrases.tsv", "flavor", 2253),
        ("lexica_modifier_counts.csv", "flavor", 7668),
    ],
)
def test_the_shared_lists_are_read(name: str, kind: str | None, rows: int) -> None:
    fragments = read_fragments(str(SHARED / name), kind)
    assert len(fragments) == rows
    assert all(f.text for f in fragments)
    if name.endswith("json"):
        dated = [f for f in fragments if f.born]
        assert len(dated) > 750
        assert all(f.died == 0 or f.died - f.born < 110 for f in dated)


def save_cache(path: Path, labels: list[str], embeds: np.ndarray) -> Path:
    """Writes a cache as clip-interrogator 0.6 does."""
    digest = hashlib.sha256(",".join(labels).encode()).hexdigest()
    save_file({"embeds": embeds, "hash": np.array([ord(c) for c in digest], dtype=np.int8)}, path)
    return path


def embeddings(rows: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_a_cache_is_read_with_the_labels_it_was_made_of(tmp_path: Path) -> None:
    labels = ["by A", "", "inspired by Ä"]
    stored = embeddings(3)
    read = read_ci_cache(save_cache(tmp_path / "c.safetensors", labels, stored), labels)
    assert (read.dtype, read.shape, read.flags.c_contiguous) == (np.float32, (3, 16), True)
    np.testing.assert_allclose(np.linalg.norm(read, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(read, stored.astype(np.float32), atol=1e-3)


def test_a_cache_of_other_labels_is_refused(tmp_path: Path) -> None:
    cache = save_cache(tmp_path / "c.safetensors", ["a", "b"], embeddings(2))
    with pytest.raises(SourceError, match=r"was made of other labels: its hash is \w{12}, that of the 2 given"):
        read_ci_cache(cache, ["b", "a"])


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not a readable safetensors file"):
        read_ci_cache(tmp_path / "nowhere.safetensors", ["a"])
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match="is not a readable safetensors file"):
        read_ci_cache(tmp_path / "bad.safetensors", ["a"])
    save_file({"embeds": embeddings(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SourceError, match="it has no 'hash' among"):
        read_ci_cache(tmp_path / "other.safetensors", ["a"])
    with pytest.raises(SourceError, match=r"of shape \(2, 16\) for 1 labels"):
        read_ci_cache(save_cache(tmp_path / "c.safetensors", ["a"], embeddings(2)), ["a"])
    with pytest.raises(SourceError, match="zero or not finite"):
        read_ci_cache(save_cache(tmp_path / "c.safetensors", ["a"], np.zeros((1, 16), np.float16)), ["a"])


def test_labels_are_those_of_clip_interrogator(tmp_path: Path) -> None:
    artists = tmp_path / "artists.txt"
    artists.write_bytes(b"A. Painter \n\nB\xff\n")
    assert ci_labels(artists) == [
        "by A. Painter", "by ", "by B\ufffd", "inspired by A. Painter", "inspired by ", "inspired by B\ufffd",
    ]  # fmt: skip
    assert ci_labels(write(tmp_path, "flavors.txt", " a\n\na")) == ["a", "", "a"]
    trendings = ci_labels("trendings")
    assert (len(trendings), trendings[0], trendings[18], trendings[-1]) == (
        72, "Artstation", "trending on Artstation", "zbrush central contest winner",
    )  # fmt: skip


@needs_ci
def test_the_labels_of_the_package_add_up_to_its_table() -> None:
    spec = importlib.util.find_spec("clip_interrogator")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    names = ("artists", "flavors", "mediums", "movements")
    assert sum(len(ci_labels(data / f"{name}.txt")) for name in names) + len(ci_labels("trendings")) == 111_867
