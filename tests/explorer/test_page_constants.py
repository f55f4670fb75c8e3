"""The constants of the page are those of the Python code."""

from __future__ import annotations

import page_constants


def test_the_committed_file_is_current():
    assert page_constants.FILE.read_text(encoding="ascii") == page_constants.build(), "run `make constants`"
