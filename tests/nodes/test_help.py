"""Every node has a help page with a picture."""

from __future__ import annotations

import json

import pytest
from paths import ROOT
from PIL import Image

DOCS = ROOT / "web" / "docs"
NODES = sorted(
    name for name in json.loads((ROOT / "tests/host/object_info.json").read_text())["nodes"] if name[:6] == "CREPS_"
)


@pytest.mark.parametrize("name", NODES)
def test_a_help_page_has_one_small_picture(name: str) -> None:
    """Made by recipes/pictures.py."""
    text, picture = (DOCS / f"{name}.md").read_text(encoding="utf-8"), DOCS / f"{name}.jpg"
    assert text.startswith("# ")
    assert text.count("](CREPS_") == text.count(f"]({picture.name})") == 1
    assert picture.stat().st_size <= 20_000
    with Image.open(picture) as image:
        assert image.width <= 480
        assert max(high - low for low, high in image.convert("RGB").getextrema()) > 40
