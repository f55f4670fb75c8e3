"""Labels by name: the class that the user spelled, or none."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from comfyui_creps.creps_core.network import LabelSet, label_vector


def chosen(label: str, *names: str) -> int:
    """The class that a label gives among classes of these names."""
    known = LabelSet(torch.arange(len(names)), torch.ones(len(names)), dict(enumerate(names)))
    vector = label_vector(label, len(names), known)
    assert vector.sum() == 1
    return int(vector.argmax())


NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("label", "names", "number"),
    [
        ("A", ("A", "a"), 0),
        ("a", ("A", "a"), 1),
        (" a ", ("A", "a"), 1),
        ("cat", ("dog", "Cat"), 1),
        (NFC, (NFD, NFC), 1),
        (NFD, (NFD, NFC), 0),
        (NFD, (NFC.upper(), NFC), 1),
        (NFD.upper(), ("x", NFC), 1),
        ("STRASSE", ("x", "stra\u00dfe"), 1),
        ("1", ("1", "0"), 0),  # a name, before a number
        ("0", ("cat", "dog"), 0),
    ],
)
def test_exact_name_first(label, names, number):
    assert chosen(label, *names) == number


@pytest.mark.parametrize(
    ("label", "names"), [("cAt", ("CAT", "Cat", "dog")), ("x", ("x", "x")), (NFC.title(), (NFC, NFD))]
)
def test_ambiguous_name(label, names):
    with pytest.raises(ValueError, match="give the number of the class") as error:
        chosen(label, *names)
    assert f"0 ({names[0]!r}), 1 ({names[1]!r})" in str(error.value)
    assert "dog" not in str(error.value)
