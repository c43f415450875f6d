from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unprompt.evaluation.metrics.kaggle import read_submission, write_submission
from unprompt.evaluation.metrics.scores import EvaluationError


def rows(count: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 384)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_written_is_read_back_exactly(tmp_path: Path, dtype: type) -> None:
    path, ids, embeddings = tmp_path / "submission.csv", ["20057f34d", "a_b_1", "日本"], rows(3, dtype)
    write_submission(path, ids, embeddings)
    submission = read_submission(path)
    assert submission.ids == tuple(ids)
    assert np.array_equal(submission.embeddings.astype(dtype), embeddings)
    assert np.array_equal(submission.of(["日本", "20057f34d"]).astype(dtype), embeddings[[2, 0]])


def test_file_is_as_the_competition_wants_it(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    embeddings = np.zeros((2, 384), np.float32)
    embeddings[0, 1], embeddings[1, 383] = 0.018848453, -1e-9
    write_submission(path, ["x", "y"], embeddings)
    lines = path.read_bytes().decode().split("\n")
    assert lines[:3] == ["imgId_eId,val", "x_0,0.0", "x_1,0.018848453"]
    assert lines[384:386] == ["x_383,0.0", "y_0,0.0"]
    assert lines[768:] == ["y_383,-1e-09", ""]


def test_rows_may_come_in_any_order_and_with_windows_line_ends(tmp_path: Path) -> None:
    path, embeddings = tmp_path / "submission.csv", rows(2)
    write_submission(path, ["x", "y"], embeddings)
    header, *lines = path.read_text().splitlines()
    path.write_bytes("\r\n".join(["\ufeff" + header, *lines[::-1]]).encode() + b"\r\n")
    submission = read_submission(path)
    assert submission.ids == ("y", "x")
    assert np.array_equal(submission.of(["x", "y"]).astype(np.float32), embeddings)


def test_broken_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, ["x"], rows(1))
    good = path.read_text().splitlines()
    for lines, message in [
        ([], "does not begin with imgId_eId,val"),
        (["id,val", *good[1:]], "does not begin with imgId_eId,val"),
        (good[:1], "holds no picture"),
        (good[:-1], "picture 'x' lacks value 383"),
        ([*good, good[5]], r"line 386: x_4 is there twice"),
        ([*good[:-1], "x_384,1"], r"line 385: .* is not ID_0 to ID_383"),
        ([*good[:-1], "x_383,nan"], "a finite value"),
        ([*good[:-1], "x_383,much"], "is not ID_PLACE,VALUE"),
        ([*good[:-1], "x_383"], "is not ID_PLACE,VALUE"),
        ([*good[:-1], "383,1"], "is not ID_0 to ID_383"),
    ]:
        path.write_text("\n".join(lines))
        with pytest.raises(EvaluationError, match=message) as caught:
            read_submission(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvaluationError, match="cannot be read as csv"):
        read_submission(path)
    with pytest.raises(EvaluationError, match=r"no submission .*missing\.csv"):
        read_submission(tmp_path / "missing.csv")


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    for ids, embeddings, message in [
        (["x"], rows(2), r"1 ids and embeddings of shape \(2, 384\)"),
        (["x", "x"], rows(2), "'x' is there twice"),
        (["x,y"], rows(1), "cannot stand in a csv"),
        ([""], rows(1), "cannot stand in a csv"),
        (["x"], np.full((1, 384), np.inf), "not finite"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            write_submission(path, ids, embeddings)
    assert not any(tmp_path.iterdir())


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, ["x"], rows(1))
    with pytest.raises(EvaluationError, match="lacks 1 pictures, 'z' the first"):
        read_submission(path).of(["x", "z"])
