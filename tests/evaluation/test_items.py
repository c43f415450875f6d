from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fakes import FakeEncoder, colour_picture
from tiny_library import write_library
from unprompt.evaluation.items import Selection, select_items
from unprompt.evaluation.metrics import EvaluationError
from unprompt.evaluation.splits import split_by_prompt
from unprompt.index.library import Library
from unprompt.types import Entry, Picture, Skipped


@pytest.fixture
def library(tmp_path: Path) -> Library:
    known = colour_picture(tmp_path / "known.png", "red", seed=1)
    return write_library(tmp_path / "library", FakeEncoder(), [(known, "a known prompt")])


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    return [
        Entry(f"thing number {i}", Picture(str(colour_picture(tmp_path / f"{i:02d}.png", "blue", seed=i))))
        for i in range(30)
    ]


def prompts_of(selected: object) -> set[str]:
    return {item.prompt for item in selected.items}  # type: ignore[attr-defined]


def test_everything_by_default_whatever_the_order(library: Library, entries: list[Entry]) -> None:
    selected = select_items({"mine": entries}, Selection(), library)
    assert prompts_of(selected) == {entry.prompt for entry in entries}
    assert selected.items == select_items({"mine": entries[::-1]}, Selection(), library).items
    assert selected.counts == {"pictures": 30, "in_part": 30, "sampled": 30, "evaluated": 30}
    assert all(len(item.sha256) == 64 and item.key == item.sha256 and item.source == "mine" for item in selected.items)


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_parts(library: Library, entries: list[Entry], part: str) -> None:
    selected = select_items({"mine": entries}, Selection(part), library)
    prompts = [entry.prompt for entry in entries]
    wanted = {p for p, split in zip(prompts, split_by_prompt(prompts), strict=True) if split == part}
    assert wanted
    assert prompts_of(selected) == wanted


def test_random_parts_follow_the_seed_and_not_the_folder(
    library: Library, entries: list[Entry], tmp_path: Path
) -> None:
    first = prompts_of(select_items({"a": entries}, Selection("test", "random"), library))
    assert len(first) == 1
    moved = []
    for entry in entries:
        path = tmp_path / "elsewhere" / Path(entry.picture.path).name  # type: ignore[union-attr]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(Path(entry.picture.path).read_bytes())  # type: ignore[union-attr]
        moved.append(Entry(entry.prompt, Picture(str(path))))
    assert prompts_of(select_items({"a": moved[::-1]}, Selection("test", "random"), library)) == first
    others = {
        next(iter(prompts_of(select_items({"a": entries}, Selection("test", "random", seed=seed), library))))
        for seed in range(5)
    }
    assert len(others) > 1


def test_samples(library: Library, entries: list[Entry]) -> None:
    seven = prompts_of(select_items({"a": entries}, Selection(limit=7), library))
    assert len(seven) == 7
    assert prompts_of(select_items({"a": entries[::-1]}, Selection(limit=7), library)) == seven
    assert prompts_of(select_items({"a": entries}, Selection(limit=7, seed=1), library)) != seven
    assert seven < prompts_of(select_items({"a": entries}, Selection(limit=8), library))


class TestLeaks:
    @pytest.fixture
    def leaky(self, entries: list[Entry], tmp_path: Path) -> list[Entry]:
        by_prompt = Entry("Prompt, known! A", Picture(str(colour_picture(tmp_path / "p.png", "green", seed=5))))
        by_picture = Entry("another wording", Picture(str(tmp_path / "known.png")))
        return [*entries[:3], by_prompt, by_picture]

    def test_left_out_and_told(self, library: Library, leaky: list[Entry], caplog: pytest.LogCaptureFixture) -> None:
        selected = select_items({"a": leaky}, Selection(), library)
        assert len(selected.items) == 3
        assert (selected.leaks["by_prompt"], selected.leaks["by_picture"]) == (1, 1)
        assert [Path(uri).name for uri in selected.leaks["pictures"]] == ["known.png", "p.png"]
        assert sum("left out" in message for message in caplog.messages) == 2

    def test_kept(self, library: Library, leaky: list[Entry]) -> None:
        assert len(select_items({"a": leaky}, Selection(keep="all"), library).items) == 5
        only = select_items({"a": leaky}, Selection(keep="prompts"), library)
        assert len(only.items) == 4
        assert "another wording" not in prompts_of(only)

    def test_nothing_left(self, library: Library, leaky: list[Entry]) -> None:
        with pytest.raises(EvaluationError, match="all 1 queries are in the library"):
            select_items({"a": leaky[3:4]}, Selection(), library)


def test_what_is_skipped_is_counted(library: Library, entries: list[Entry], tmp_path: Path) -> None:
    twin = Entry(entries[0].prompt, Picture(entries[0].picture.path))  # type: ignore[union-attr]
    more = [
        twin,
        Skipped("x", "no prompt"),
        Entry("no picture here"),
        Entry("gone", Picture(str(tmp_path / "gone.png"))),
    ]
    selected = select_items({"a": [*entries, *more]}, Selection(), library)
    assert selected.skipped == {"duplicate": 1, "missing": 1, "no picture": 1, "no prompt": 1}
    assert selected.counts["evaluated"] == 30


def test_quarters_are_pictures_of_their_own(library: Library, tmp_path: Path) -> None:
    grid = tmp_path / "grid.png"
    Image.new("RGB", (16, 16), "blue").save(grid)
    cells = [Entry("four blues", Picture(str(grid), cell=cell), {"source": "repo@1:x"}) for cell in ("tl", "tr")]
    selected = select_items({"a": cells}, Selection(), library)
    assert [item.key[-3:] for item in selected.items] == ["#tl", "#tr"]
    assert {item.source for item in selected.items} == {"repo"}
    assert len({item.group for item in selected.items}) == 1


def test_mistakes(library: Library, entries: list[Entry], tmp_path: Path) -> None:
    for wrong, message in (
        ({"part": "tset"}, "unknown part 'tset': use one of train, dev, test, all"),
        ({"group_by": "words"}, "unknown grouping 'words'"),
        ({"keep": "some"}, "kind of leaks to keep"),
        ({"limit": 0}, "limit of 0 pictures"),
    ):
        with pytest.raises(EvaluationError, match=message):
            Selection(**wrong)  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="holds no picture with a prompt \\(1 no picture\\)"):
        select_items({"a": [Entry("a prompt alone")]}, Selection(), library)
    with pytest.raises(EvaluationError, match="none of 1 pictures is in part 'test'"):
        select_items({"a": [Entry("thing number 1", entries[1].picture)]}, Selection("test"), library)
    with pytest.raises(EvaluationError, match="none of 1 pictures can be read \\(1 missing\\)"):
        select_items({"a": [Entry("x", Picture(str(tmp_path / "gone.png")))]}, Selection(), library)
