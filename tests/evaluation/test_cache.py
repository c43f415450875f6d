from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unprompt.evaluation import cache
from unprompt.evaluation.cache import MAX_SEGMENTS, Memo, RecordStore, code_version, content_key


class TestRecordStore:
    def test_values_outlive_the_object(self, tmp_path: Path) -> None:
        store = RecordStore(tmp_path / "store")
        assert store.get("a") is None
        store.put({"a": {"text": "café", "value": float("nan")}, "b": [0.1 + 0.2]})
        store.put({"c": 3})
        again = RecordStore(tmp_path / "store")
        assert len(again) == 3
        assert again.get("a")["text"] == "café"
        assert again.get("a")["value"] != again.get("a")["value"]
        assert again.get("b") == [0.1 + 0.2]

    def test_a_folder_is_only_made_when_something_is_kept(self, tmp_path: Path) -> None:
        store = RecordStore(tmp_path / "store")
        store.put({})
        assert len(store) == 0
        assert not store.folder.exists()

    def test_many_segments_become_one(self, tmp_path: Path) -> None:
        store = RecordStore(tmp_path)
        for number in range(MAX_SEGMENTS + 1):
            store.put({f"key {number}": number})
        store.compact()
        assert len(list(tmp_path.glob("*.jsonl"))) == 1
        assert {RecordStore(tmp_path).get(f"key {number}") for number in range(MAX_SEGMENTS + 1)} == {
            *range(MAX_SEGMENTS + 1)
        }

    def test_what_a_killed_run_left_is_no_harm(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        RecordStore(tmp_path).put({"a": 1})
        (tmp_path / "half.jsonl.tmp").write_text('["b", ')
        (tmp_path / "torn.jsonl").write_text('["b", 2]\n["c"')
        store = RecordStore(tmp_path)
        assert store.get("a") == 1
        assert "torn.jsonl is left out" in caplog.messages[0]

    @settings(max_examples=15)
    @given(st.dictionaries(st.text(), st.recursive(st.integers() | st.text() | st.floats(allow_nan=False), st.lists)))
    def test_json_comes_back_as_it_was(self, tmp_path_factory: pytest.TempPathFactory, records: dict) -> None:
        folder = tmp_path_factory.mktemp("store")
        RecordStore(folder).put(records)
        again = RecordStore(folder)
        assert {key: again.get(key) for key in records} == records


class TestMemo:
    def test_computes_once(self, tmp_path: Path) -> None:
        calls: list[int] = []

        def compute() -> list[int]:
            calls.append(1)
            return [7]

        memo = Memo(RecordStore(tmp_path), "1")
        assert memo(["facts", 1], compute) == memo(["facts", 1], compute) == [7]
        memo.flush()
        assert Memo(RecordStore(tmp_path), "1")(["facts", 1], compute) == [7]
        assert len(calls) == 1

    def test_other_facts_and_other_code_are_computed_anew(self, tmp_path: Path) -> None:
        memo = Memo(RecordStore(tmp_path), "1")
        assert memo(["a"], lambda: 1) == 1
        assert memo(["b"], lambda: 2) == 2
        memo.flush()
        assert Memo(RecordStore(tmp_path), "2")(["a"], lambda: 3) == 3


def test_keys_tell_apart_what_differs() -> None:
    facts = [["a", "b"], ["ab"], [["a"], "b"], ["a", None], [1], ["1"], [1.0000001], [{"x": 1}], [{"x": 2}]]
    assert len({content_key(each) for each in facts}) == len(facts)
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})


def test_code_versions_follow_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part" / "deep").mkdir(parents=True)
    (tmp_path / "part" / "one.py").write_text("a = 1\n")
    (tmp_path / "part" / "deep" / "words.txt").write_text("red\n")
    (tmp_path / "alone.py").write_text("b = 1\n")
    monkeypatch.setattr(cache.unprompt, "__file__", str(tmp_path / "__init__.py"))

    def version(*places: str) -> str:
        code_version.cache_clear()
        return code_version(*places)

    try:
        before = version("part"), version("part", "alone"), version("part.one")
        (tmp_path / "part" / "deep" / "words.txt").write_text("blue\n")
        after = version("part"), version("part", "alone"), version("part.one")
        assert before[0] != after[0]
        assert before[1] != after[1]
        assert before[2] == after[2]
        (tmp_path / "alone.py").write_text("b = 2\n")
        assert version("part") == after[0]
        assert version("part", "alone") != after[1]
    finally:
        code_version.cache_clear()


def test_segments_are_lines_of_key_and_value(tmp_path: Path) -> None:
    RecordStore(tmp_path).put({"b": 2, "a": 1})
    (segment,) = tmp_path.glob("*.jsonl")
    assert [json.loads(line) for line in segment.read_text().splitlines()] == [["a", 1], ["b", 2]]
