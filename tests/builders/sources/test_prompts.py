"""Prompts without pictures."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unprompt.builders.sources import DiffusionFilters, SourceOptions, open_source
from unprompt.builders.sources.common import clean_prompt
from unprompt.errors import SourceError
from unprompt.types import Entry, Skipped


def read(path: Path, options: SourceOptions = SourceOptions()) -> list[Entry | Skipped]:  # noqa: B008
    source = open_source(str(path), options=options)
    assert source.format == "prompts"
    items = list(source)
    assert items == list(source)
    return items


def counted(items: list[Entry | Skipped]) -> list[tuple[str, int]]:
    assert all(item.picture is None for item in items if isinstance(item, Entry))
    return [(item.prompt, item.count) for item in items if isinstance(item, Entry)]


def test_text_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa cat\r\na dog\n\n  a   cat \ncaf\xe9")
    assert counted(read(tmp_path / "a.txt")) == [("a cat", 2), ("a dog", 1), ("café", 1)]
    (tmp_path / "b.txt").write_text("a cat\na dog\n", encoding="utf-16")
    assert counted(read(tmp_path / "b.txt")) == [("a cat", 1), ("a dog", 1)]


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,Prompt\n1,"a cat, black"\n2,a dog\n3,"a cat, black"\n')
    (tmp_path / "a.tsv").write_text("caption\tsource\na cat\there\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a cat", "id": "x"}\nbroken\n{"prompt": 5}\n{"prompt": ""}\n')
    assert counted(read(tmp_path / "a.csv")) == [("a cat, black", 2), ("a dog", 1)]
    assert read(tmp_path / "a.tsv") == [Entry("a cat", None, {"source": "here"})]
    items = read(tmp_path / "a.jsonl")
    assert items[0] == Entry("a cat", None, {"source": "a.jsonl", "id": "x"})
    assert [item.reason for item in items[1:]] == ["bad row", "bad row", "no prompt"]


def test_a_prompt_list_with_a_path_column_is_no_pairs_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,prompt\nfar/away.png,a cat\n")
    assert counted(read(tmp_path / "a.csv")) == [("a cat", 1)]


def test_diffusiondbs_own_table(tmp_path: Path) -> None:
    rows = {
        "image_name": ["a.png", "b.png", "c.png", "d.png"],
        "prompt": ["a cat", "nasty", "a cat", "a dog"],
        "part_id": [1, 1, 1, 1],
        "prompt_nsfw": [0.1, 0.9, 0.1, None],
    }
    pq.write_table(pa.table(rows), tmp_path / "metadata.parquet")
    items = read(tmp_path / "metadata.parquet")
    assert counted(items) == [("a cat", 2), ("a dog", 1)]
    assert [item.reason for item in items if isinstance(item, Skipped)] == ["filter: prompt nsfw"]
    off = SourceOptions(diffusion_filters=DiffusionFilters(prompt_nsfw=None))
    assert counted(read(tmp_path / "metadata.parquet", off)) == [("a cat", 2), ("nasty", 1), ("a dog", 1)]


def test_tables_without_prompts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("one,two\n1,2\n")
    with pytest.raises(SourceError, match="no prompt column among one, two"):
        open_source(str(tmp_path / "a.csv"))
    (tmp_path / "b.csv").write_text("a cat\na dog\n")
    with pytest.raises(SourceError, match="no header line"):
        open_source(str(tmp_path / "b.csv"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", " a ", "c d", "c  d", "é", ""]) | st.text(max_size=5), max_size=20))
def test_counts_agree_with_a_counter(prompts: list[str]) -> None:
    import tempfile

    cleaned = [prompt for prompt in map(clean_prompt, prompts) if prompt]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.jsonl"
        path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ["x", *prompts]), encoding="utf-8")
        assert counted(read(path)) == list(Counter(["x", *cleaned]).items())


def test_a_prompt_of_two_lists_is_counted_in_both(tmp_path: Path) -> None:
    from fakes import FakeEncoder
    from unprompt.builders.build import build_library
    from unprompt.index.library import Library

    (tmp_path / "a.txt").write_text("a cat\na cat\n")
    (tmp_path / "b.txt").write_text("a dog\na cat\n")
    sources = [open_source(str(tmp_path / name)) for name in ("a.txt", "b.txt")]
    for _ in range(2):  # built twice, counted once
        build_library(sources, tmp_path / "l", FakeEncoder(), workers=0)
        assert Library.open(tmp_path / "l").prompts([0, 1]) == [("a cat", 3), ("a dog", 1)]
