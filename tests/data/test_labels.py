"""Labels of a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from comfyui_creps.common.errors import DatasetError
from comfyui_creps.creps_core.data import Batches, ImageDataset, open_dataset
from picture_files import SIDE, colours, encoded, numbered, write, zipped


def labelled(tmp_path: Path, labels: object, **options: object) -> ImageDataset:
    files = numbered(5) | {"dataset.json": json.dumps(labels).encode()}
    return open_dataset(write(tmp_path, files), resolution=SIDE, use_labels=True, **options)  # type: ignore


def test_classes(tmp_path: Path):
    names = list(numbered(5))
    entries = [[names[0], 2], [names[1].replace("/", "\\"), 0], [names[3], 4], [names[4], None]]
    write(tmp_path, {"README": b"hello"})
    dataset = labelled(tmp_path, {"labels": entries}, mirror=True)
    assert dataset.c_dim == 5
    assert dataset.names == [names[0], names[1], names[3]]
    assert dataset.report.skipped == [(names[2], "no label"), (names[4], "no label")]
    labels = dataset.labels([0, 1, 2, 3])
    assert labels.dtype == torch.float32
    assert labels.argmax(1).tolist() == [2, 0, 4, 2]
    assert labels.sum(1).tolist() == [1, 1, 1, 1]
    with Batches(dataset, 7) as batches:
        batch = next(batches)
        indices = [int(batches._order(0)[k]) for k in range(6)]
        assert torch.equal(batch.labels[:6], dataset.labels(indices))
    assert open_dataset(tmp_path, resolution=SIDE).c_dim == 0
    # A file with a label may turn out not to be an image.
    write(tmp_path, {names[3]: b""})
    fewer = open_dataset(tmp_path, resolution=SIDE, use_labels=True)
    assert (fewer.names, fewer.c_dim) == ([names[0], names[1]], 5)
    assert (names[3], "empty file") in fewer.report.skipped


def test_vectors(tmp_path: Path):
    names = list(numbered(5))
    dataset = labelled(tmp_path, {"labels": [[name, [number, -0.5]] for number, name in enumerate(names)]})
    assert dataset.c_dim == 2
    assert dataset.labels([4, 0]).tolist() == [[4, -0.5], [0, -0.5]]


def test_labels_in_the_one_folder_of_an_archive(tmp_path: Path):
    content = json.dumps({"labels": [["a.png", 0], ["b.png", 1]]}).encode()
    files = {"mine/dataset.json": content, "mine/a.png": encoded(colours(0)), "mine/b.png": encoded(colours(1))}
    dataset = open_dataset(zipped(tmp_path / "x.zip", files), resolution=SIDE, use_labels=True)
    assert dataset.labels([0, 1]).tolist() == [[1, 0], [0, 1]]


def test_labels_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DatasetError, match=r"there is no dataset.json; put one beside the pictures: \{\"labels\""):
        open_dataset(write(tmp_path, numbered(5)), resolution=SIDE, use_labels=True)
    one, two = list(numbered(5))[:2]
    for content, match in (
        ({}, "has no labels; it should be"),
        ([], "has no labels; it should be"),
        ({"labels": None}, "has no labels; it should be"),
        ({"labels": []}, "has no labels; give one"),
        ({"labels": {"a": 1}}, "not a list"),
        ({"labels": [[one]]}, "is not a name with a label"),
        ({"labels": [[1, one]]}, "is not a name with a label"),
        ({"labels": [[one, 1], [one, 2]]}, "two labels for"),
        ({"labels": [["other.png", 1]]}, 'a label for "other.png", but there is no such picture'),
        ({"labels": [[one, -1]]}, "must be a class number from 0 to 65535"),
        ({"labels": [[one, 1 << 16]]}, "must be a class number from 0 to 65535"),
        ({"labels": [[one, True]]}, "must be a class number"),
        ({"labels": [[one, 1.0]]}, "must be a class number"),
        ({"labels": [[one, "cat"]]}, "must be a class number"),
        ({"labels": [[one, 1], [two, [1]]]}, "mixed"),
        ({"labels": [[one, [1, 2]], [two, [1]]]}, "has 1 numbers, not 2"),
        ({"labels": [[one, []]]}, "has 0 numbers, not 1 to 65536"),
        ({"labels": [[one, [float("nan")]]]}, "not finite"),
        ({"labels": [[one, [1e39]]]}, "not finite"),
        ({"labels": [[one, [True]]]}, "not finite numbers"),
        ({"labels": [[one, [10**400]]]}, "not finite"),
    ):
        with pytest.raises(DatasetError, match=match):
            labelled(tmp_path, content)
    for data in (b"{", b"\xff\xfe\xfd", b"[" * 200_000, b'{"labels": [["x", ' + b"9" * 10_000 + b"]]}"):
        write(tmp_path, {"dataset.json": data})
        with pytest.raises(DatasetError, match="cannot be read"):
            open_dataset(tmp_path, resolution=SIDE, use_labels=True)
    monkeypatch.setattr("comfyui_creps.creps_core.data.labels._MAX_LABELS_FILE", 10)
    with pytest.raises(DatasetError, match="larger than 10 bytes"):
        labelled(tmp_path, {"labels": [[one, 1]]})
    assert open_dataset(tmp_path, resolution=SIDE).report.used == 5


def test_equal_class_names_are_said(tmp_path: Path):
    names = list(numbered(5))
    labels = {"labels": [[name, k] for k, name in enumerate(names)], "classes": ["A", "a", "dog", "dog ", "cat"]}
    report = str(labelled(tmp_path / "file", labels).report)
    assert "the classes 0 ('A'), 1 ('a') have names that are equal but for case or the form of accents" in report
    assert "the classes 2 ('dog'), 3 ('dog ') have" in report
    assert "'cat'" not in report
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    files = {f"{folder}/{k}.png": encoded(colours(k)) for folder in (composed, decomposed, "tea") for k in range(2)}
    folders = open_dataset(zipped(tmp_path / "x.zip", files), resolution=SIDE, use_labels="folders")
    assert folders.c_dim == 3
    assert str(folders.report).count("have names that are equal") == 1
