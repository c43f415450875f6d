"""The real data sets beside the repository, where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

from unprompt.builders.sources import open_source
from unprompt.pictures.opening import open_picture, read_bytes
from unprompt.types import Entry

SHARED = Path(__file__).parents[4] / "shared"
pytestmark = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"no data at {SHARED}")


@pytest.mark.parametrize(
    ("name", "total"),
    [("sd15-artists", 2269), ("sdxl-fashion", 1055), ("sd1-modifiers", 366), ("sd14-artist-grids", 21200)],
)
def test_every_row_is_an_entry(name: str, total: int) -> None:
    source = open_source(str(SHARED / "data" / name))
    assert source.format == "pairs"
    entries = list(source)
    assert len(entries) == total
    assert all(isinstance(entry, Entry) for entry in entries)
    for entry in entries[:: total // 20]:
        assert isinstance(entry, Entry)
        assert entry.picture is not None
        image = open_picture(entry.picture, read_bytes(entry.picture))
        assert image.size[0] == {"sd1-modifiers": 320, "sd14-artist-grids": 150}.get(name, 256)
        assert {"source", "license", "model"} <= set(entry.metadata)


def test_prompts_alone() -> None:
    totals = {}
    for path in sorted((SHARED / "prompts").glob("*.jsonl")):
        source = open_source(str(path))
        assert source.format == "prompts"
        totals[path.stem] = sum(item.count for item in source if isinstance(item, Entry))
    assert totals["diffusiondb"] == 8769
    assert totals["pickapic"] == 22818
    assert sum(totals.values()) == 63687
