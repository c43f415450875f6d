from __future__ import annotations

import threading

import pytest

from unprompt.index.kept import Kept


class Maker:
    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, name: str) -> str:
        self.made.append(name)
        if name == "bad":
            raise ValueError(name)
        return name * 3


def test_values_go_by_size_the_one_asked_for_longest_ago_first() -> None:
    make = Maker()
    kept = Kept(make, len, limit=9)
    assert [kept(name) for name in ("a", "b", "c", "a")] == ["aaa", "bbb", "ccc", "aaa"]
    assert make.made == ["a", "b", "c"]
    kept("d")  # "b" was not asked for since
    for name in ("a", "c", "d"):
        kept(name)
    assert make.made == ["a", "b", "c", "d"]
    kept("b")
    assert make.made[-1] == "b"


def test_one_value_is_kept_whatever_its_size() -> None:
    make = Maker()
    kept = Kept(make, len, limit=9)
    kept("a")
    for _ in range(3):
        kept("large one")
    assert make.made == ["a", "large one"]
    kept("a")
    kept("b")
    kept("a")
    assert make.made == ["a", "large one", "a", "b"]


def test_an_error_is_not_kept() -> None:
    make = Maker()
    kept = Kept(make, len, limit=9)
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            kept("bad")
    assert make.made == ["bad", "bad"]


def test_threads_share_it() -> None:
    kept = Kept(Maker(), len, limit=30)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for at in range(3000):
            name = chr(97 + (at * seed) % 26)
            if kept(name) != name * 3:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert kept._bytes == sum(size for _, size in kept._values.values()) <= 30
