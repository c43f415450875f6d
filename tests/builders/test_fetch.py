"""Downloads from a hub of our own, which breaks connections, lies about content and forgets ranges."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from click.testing import CliRunner

from unprompt.builders import fetch
from unprompt.builders.fetch import diffusiondb_paths, fetch_files, parse_parts
from unprompt.cli import main
from unprompt.errors import SourceError

pytest.importorskip("requests", reason="needs the fetch extra")
BASE = "/datasets/poloclub/diffusiondb/resolve/main/"


class Hub(ThreadingHTTPServer):
    """Serves `files` as the hub does; the other attributes say how it fails."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.break_after: dict[str, list[int]] = {}
        self.statuses: dict[str, list[int]] = {}
        self.corrupt: Counter[str] = Counter()
        self.ranges_known = True
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        assert self.path == "/api/datasets/poloclub/diffusiondb/paths-info/main"
        if self._fails("list"):
            return
        rows = []
        for path in form["paths"]:
            if path in self.server.files:
                data = self.server.files[path]
                lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
                rows.append({"type": "file", "oid": "0" * 40, "size": len(data), "path": path, "lfs": lfs})
        self._send(200, json.dumps(rows).encode(), {})

    def do_GET(self) -> None:
        name = self.path.removeprefix(BASE)
        self.server.asked.append((name, self.headers.get("Range", "")))
        if self._fails(name):
            return
        data = self.server.files[name]
        if self.server.corrupt[name]:
            self.server.corrupt[name] -= 1
            data = bytes(len(data))
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        if not self.server.ranges_known:
            start = 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        breaks = self.server.break_after.get(name)
        self._send(206 if start else 200, data[start:], headers, breaks.pop(0) if breaks else None)

    def _fails(self, name: str) -> bool:
        if statuses := self.server.statuses.get(name):
            self._send(statuses.pop(0), b"", {})
            return True
        return False

    def _send(self, status: int, body: bytes, headers: dict[str, str], stop: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:stop])
        if stop is not None:
            self.close_connection = True


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(fetch, "_PAUSE", 0.001)
    for path in diffusiondb_paths(range(1, 7)):
        server.files[path] = np.random.default_rng(len(server.files)).bytes(300_000)
    yield server
    server.shutdown()
    server.server_close()


def whole(hub: Hub, folder: Path) -> bool:
    return all((folder / path).read_bytes() == data for path, data in hub.files.items())


def test_parts_come_where_build_looks_for_them(hub: Hub, tmp_path: Path) -> None:
    counted: list[int] = []
    report = fetch_files(list(hub.files), tmp_path, progress=counted.append)
    assert (report.fetched, report.known, report.bytes) == (7, 0, 2_100_000)
    assert sum(counted) == 2_100_000
    assert whole(hub, tmp_path)
    assert sorted(path.name for path in (tmp_path / "images").iterdir())[0] == "part-000001.zip"
    asked = len(hub.asked)
    again = fetch_files(list(hub.files), tmp_path)
    assert (again.fetched, again.known, len(hub.asked)) == (0, 7, asked)


def test_a_broken_connection_is_resumed_not_begun_again(hub: Hub, tmp_path: Path) -> None:
    name = "images/part-000003.zip"
    hub.break_after[name] = [131_072, 65_536, 65_600]
    report = fetch_files([name], tmp_path, retries=1)
    assert (tmp_path / name).read_bytes() == hub.files[name]
    assert report.bytes == 300_000
    assert [asked for path, asked in hub.asked if path == name] == [
        "bytes=0-", "bytes=131072-", "bytes=196608-", "bytes=262144-",
    ]  # fmt: skip


def test_the_next_run_goes_on_where_the_last_was_cut(hub: Hub, tmp_path: Path) -> None:
    name = "images/part-000001.zip"
    hub.break_after[name] = [140_000, 0, 0]
    with pytest.raises(SourceError, match=r"part-000001\.zip: .*; run the same command again to go on"):
        fetch_files([name], tmp_path, retries=1)
    assert (tmp_path / (name + ".part")).stat().st_size == 131_072
    assert not (tmp_path / name).exists()
    report = fetch_files([name], tmp_path)
    assert (report.bytes, hub.asked[-1]) == (168_928, (name, "bytes=131072-"))
    assert (tmp_path / name).read_bytes() == hub.files[name]
    assert not (tmp_path / (name + ".part")).exists()


def test_a_server_without_ranges_starts_over(hub: Hub, tmp_path: Path) -> None:
    hub.ranges_known = False
    name = "images/part-000002.zip"
    hub.break_after[name] = [100_000]
    counted: list[int] = []
    fetch_files([name], tmp_path, progress=counted.append)
    assert (tmp_path / name).read_bytes() == hub.files[name]
    assert sum(counted) == 300_000


def test_wrong_content_is_thrown_away_and_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    name = "images/part-000002.zip"
    hub.corrupt[name] = 1
    fetch_files([name], tmp_path)
    assert (tmp_path / name).read_bytes() == hub.files[name]
    other = "images/part-000004.zip"
    hub.corrupt[other] = 99
    with pytest.raises(SourceError, match=r"300,000 bytes came whose sha256 is not the hub's"):
        fetch_files([other], tmp_path, retries=2)
    assert list((tmp_path / "images").glob("part-000004*")) == []


def test_a_part_that_was_spoilt_on_disk_is_found_out(hub: Hub, tmp_path: Path) -> None:
    name = "images/part-000002.zip"
    (tmp_path / "images").mkdir()
    (tmp_path / name).write_bytes(bytes(300_000))
    (tmp_path / (name + ".part")).write_bytes(b"x" * 400_000)
    assert fetch_files([name], tmp_path).fetched == 1
    assert (tmp_path / name).read_bytes() == hub.files[name]


def test_a_busy_server_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    name = "images/part-000005.zip"
    hub.statuses = {name: [503, 429, 500], "list": [503, 502]}
    assert fetch_files([name], tmp_path).fetched == 1


def test_one_file_that_fails_does_not_keep_the_others(hub: Hub, tmp_path: Path) -> None:
    name = "images/part-000003.zip"
    hub.statuses[name] = [403]
    with pytest.raises(SourceError, match=r"1 of 7 files failed: .*part-000003\.zip answers HTTP 403"):
        fetch_files(list(hub.files), tmp_path, workers=2)
    assert len(list(tmp_path.rglob("*.zip"))) == 5
    assert fetch_files(list(hub.files), tmp_path).known == 6


def test_what_the_hub_lacks_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no file images/part-000007\.zip"):
        fetch_files(diffusiondb_paths([6, 7]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_PAUSE", 0.001)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    run = CliRunner().invoke(main, ["fetch", "diffusiondb", "--parts", "1", "--out", str(tmp_path)])
    assert run.exit_code == 1
    [line] = [line for line in run.stderr.splitlines() if line.startswith("Error")]
    assert line == (
        "Error: http://127.0.0.1:9 cannot be reached (Connection refused); fetch needs a network: run it where there "
        "is one, or set HF_ENDPOINT to a mirror"
    )


def test_the_command_fetches_and_build_recognises(hub: Hub, tmp_path: Path) -> None:
    from unprompt.builders.sources import open_source

    run = CliRunner().invoke(main, ["fetch", "diffusiondb", "--parts", "2-3", "--out", str(tmp_path), "--no-metadata"])
    assert run.exit_code == 0, run.output
    assert "2 files fetched (0.6 MB), 0 were there already" in run.stdout
    assert open_source(str(tmp_path)).format == "diffusiondb"


@pytest.mark.parametrize(
    ("text", "large", "parts"), [("1-3", False, [1, 2, 3]), (" 7 , 2-3,3", False, [2, 3, 7]), ("14000", True, [14000])]
)
def test_part_numbers(text: str, large: bool, parts: list[int]) -> None:
    assert parse_parts(text, large) == parts


@pytest.mark.parametrize("text", ["", "x", "3-1", "0", "2001", "1-", "-4", "1,,2", "1-9999999999"])
def test_part_numbers_that_are_none(text: str) -> None:
    with pytest.raises(SourceError, match=r"is no list of parts|are not there; choose from 1 to 2000"):
        parse_parts(text)


def test_paths_of_the_large_set() -> None:
    assert diffusiondb_paths([1, 10000, 10001], large=True) == [
        "metadata-large.parquet",
        "diffusiondb-large-part-1/part-000001.zip",
        "diffusiondb-large-part-1/part-010000.zip",
        "diffusiondb-large-part-2/part-010001.zip",
    ]
