"""Lists of numbers, batches, truncation, sheets."""

from __future__ import annotations

import pytest
import torch
from comfyui_creps.creps_core import sample, truncate
from comfyui_creps.creps_core.checkpoints import fingerprint
from comfyui_creps.creps_core.comparison import contact_sheet
from comfyui_creps.creps_core.latents import (
    average_latents,
    concatenate,
    mix_grid,
    parse_seeds,
    sample_latents,
    select,
    truncate_latents,
)
from comfyui_creps.creps_core.latents.ranges import parse_indices, parse_layers
from comfyui_creps.creps_core.latents.sampling import from_origin
from networks import make_generator

GENERATOR = make_generator()
CLASSES = make_generator(c_dim=3)
OTHER = make_generator(img_resolution=64)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("1, 5, 10-13", [1, 5, 10, 11, 12, 13]),
        ("7", [7]),
        ("3-1; 3\n3 ", [3, 2, 1, 3, 3]),
        ("10 - 12", [10, 11, 12]),
        ("18446744073709551615", [(1 << 64) - 1]),
        ("0:4", [0, 1, 2, 3]),
        (":3, 8 : 10", [0, 1, 2, 8, 9]),
        ("0:10:4 9:6:-1", [0, 4, 8, 9, 8, 7]),
    ],
)
def test_seeds_are_read(text: str, seeds: list[int]):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "x",
        "1.5",
        "-1",
        "1--2",
        "0-4096",
        "18446744073709551616",
        "0:4097",
        "3:",
        "-1:4",
        "0:4:0",
        "4:4",
        "9-18446744073709551616",
    ],
)
def test_bad_seeds_are_named(text: str):
    with pytest.raises(ValueError, match=r"seed|step"):
        parse_seeds(text)


def test_every_list_takes_both_kinds_of_ranges_and_says_so():
    for parse in (parse_seeds, lambda text: parse_indices(text, 10), lambda text: parse_layers(text, 10)):
        assert parse("0-3") == parse("0:4") == [0, 1, 2, 3]
        with pytest.raises(ValueError, match=r"\d-\d.*\d:\d"):
            parse("0..3")


@pytest.mark.parametrize("text", ["0, 2, -1, 3:7", ":", "::-1", "::2", "-3:", ":2, 1 : 3", "8:3:-2"])
def test_indices_are_those_of_python(text: str):
    items = list(range(10))
    wanted = []
    for part in text.replace(" : ", ":").split(","):
        if ":" in part:
            wanted += items[slice(*(int(value) if value.strip() else None for value in part.split(":")))]
        else:
            wanted.append(items[int(part)])
    assert parse_indices(text, 10) == wanted


def test_both_ends_of_a_range_of_indices_belong_to_it():
    assert parse_indices("0-3, 9, 3 - 1", 10) == [0, 1, 2, 3, 9, 3, 2, 1]


@pytest.mark.parametrize("text", ["10", "-11", "a", "1:2:0", "5:5", "", "8-10", "1--2", "0-99999999999"])
def test_bad_indices_are_named(text: str):
    with pytest.raises(ValueError, match=r"batch|index|step|names|latents"):
        parse_indices(text, 10)


def test_layers_have_names_and_numbers():
    for num_ws in (3, 5, 9, 13, 17, 19):
        parts = [parse_layers(name, num_ws) for name in ("coarse", "middle", "fine")]
        assert sum(parts, []) == parse_layers("all", num_ws) == list(range(num_ws))  # noqa: RUF017
        assert all(parts)
    assert parse_layers("0-3, 6, -1, 3", 17) == [0, 1, 2, 3, 6, 16]
    assert parse_layers("Coarse + 16", 17) == [*range(6), 16]
    assert parse_layers("0:4, -2:", 17) == [0, 1, 2, 3, 15, 16]
    for text in ("17", "3-20", "medium", "", "-18", "3:20", "5:5"):
        with pytest.raises(ValueError, match="style"):
            parse_layers(text, 17)


def test_samples_know_where_they_come_from():
    latents = sample_latents(CLASSES, [3, 8], label=2, truncation_psi=0.6, truncation_cutoff=4)
    ws = sample(CLASSES, [3, 8], label=2, truncation_psi=0.6, truncation_cutoff=4)
    assert torch.equal(latents.ws, ws)
    assert latents.fingerprint == fingerprint(CLASSES) != fingerprint(GENERATOR)
    assert latents.titles() == ["seed 3", "seed 8"]
    assert latents.origin is not None
    assert (from_origin(CLASSES, latents.origin) - ws).abs().max() < 1e-6
    with pytest.raises(ValueError, match="another generator"):
        from_origin(make_generator(img_resolution=64, c_dim=3), latents.origin)


def test_select_concatenate_average():
    latents = sample_latents(GENERATOR, range(6))
    some = select(latents, "5, 0:2", repeat=2)
    assert some.seeds == [5, 0, 1] * 2
    assert torch.equal(some.ws, sample(GENERATOR, some.seeds))
    assert some.origin is not None
    assert torch.equal(from_origin(GENERATOR, some.origin), some.ws)
    both = concatenate([some, latents])
    assert len(both) == len(both.seeds) == 12
    assert both.fingerprint == latents.fingerprint
    assert both.origin is not None
    mean = average_latents(both)
    assert torch.equal(mean.ws, both.ws.mean(0, keepdim=True))
    assert (mean.seeds, mean.origin) == ([], None)
    mixed = concatenate([mean, latents])
    assert (mixed.seeds, mixed.origin) == ([], None)
    assert mixed.titles() == ["mean of 12", *latents.titles()]
    with pytest.raises(ValueError, match="different generators"):
        concatenate([latents, sample_latents(OTHER, [0])])
    for wrong in ([6], []):
        with pytest.raises(ValueError, match="batch of 6"):
            select(latents, wrong)


def test_truncation_after_sampling_is_truncation():
    once = sample_latents(GENERATOR, [1, 2], truncation_psi=0.5)
    later = truncate_latents(GENERATOR, sample_latents(GENERATOR, [1, 2]), 0.5)
    assert torch.allclose(once.ws, later.ws, atol=1e-6)
    twice = truncate_latents(GENERATOR, later, 0.5, cutoff=3)
    assert torch.allclose(twice.ws, truncate(later.ws, GENERATOR.mapping.w_avg, 0.5, 3), atol=1e-6)
    assert twice.origin is not None
    assert torch.allclose(from_origin(GENERATOR, twice.origin), twice.ws, atol=1e-6)
    goal = select(once, [1])
    moved = truncate_latents(GENERATOR, once, 0.25, cutoff=2, towards=goal)
    assert torch.allclose(moved.ws[0, :2], goal.ws[0, :2].lerp(once.ws[0, :2], 0.25))
    assert torch.equal(moved.ws[:, 2:], once.ws[:, 2:])
    assert moved.origin is None
    with pytest.raises(ValueError, match="towards"):
        truncate_latents(GENERATOR, sample_latents(GENERATOR, range(3)), 0.5, towards=once)
    with pytest.raises(ValueError, match="styles"):
        truncate_latents(OTHER, once, 0.5)


def test_contact_sheet():
    latents = sample_latents(GENERATOR, range(5))
    pictures = torch.rand(5, 40, 40, 3)
    sheet = contact_sheet(pictures, latents, columns=3)
    assert sheet.dtype == torch.float32
    assert 0 <= sheet.min() <= sheet.max() <= 1
    assert sheet.shape[1] == 3 * 40 + 4 * 8
    assert torch.allclose(sheet[8:48, 56:96], pictures[1], atol=1 / 255)
    table = mix_grid(select(latents, "0, 1"), select(latents, "2:4"), "fine")
    titled = contact_sheet(pictures[:4, ..., :1], table)
    assert titled.shape[0] > 2 * 40 + 3 * 8
    assert torch.allclose(titled[-48:-8, -48:-8], pictures[3, ..., :1].expand(-1, -1, 3), atol=1 / 255)
    with pytest.raises(ValueError, match="5 pictures of 4"):
        contact_sheet(pictures, table)
