"""In the real ComfyUI: latents under names of one's own, and the one that was chosen on a sheet."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import load_builtin, sample
from comfyui_creps.creps_core.latents import load_latents
from PIL import Image

if TYPE_CHECKING:
    from comfy_host import ComfyClient, ComfyHost

Prompt = dict[str, Any]


@pytest.fixture(scope="module")
def host(
    start_comfyui: Callable[..., AbstractContextManager[ComfyHost]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyHost]:
    with start_comfyui(tmp_path_factory.mktemp("base") / "comfyui") as running:
        yield running


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": f"CREPS_{kind}", "inputs": inputs, "_meta": {}}


def keeping(seed: int, name: str, replace: bool = False) -> Prompt:
    return {
        "1": node("LoadGenerator", checkpoint="builtin: alpine"),
        "2": node("SampleLatents", model=["1", 0], seed=seed, batch_size=1, truncation_psi=1.0),
        "3": node("SaveFavourite", model=["1", 0], latent=["2", 0], name=name, replace=replace),
    }


def outcome(history: dict[str, Any]) -> tuple[str, str]:
    kind, message = history["status"]["messages"][-1]
    return kind, message.get("exception_message", "")


def test_a_favourite_is_found_under_its_name(host: ComfyHost, client: ComfyClient) -> None:
    generator = load_builtin("alpine")
    history = client.run(keeping(7, "evening lake"))
    assert outcome(history)[0] == "execution_success", outcome(history)
    (file,) = history["outputs"]["3"]["images"]
    with Image.open(io.BytesIO(client.view(file))) as thumbnail:
        assert max(thumbnail.size) == 256
        assert np.asarray(thumbnail).std() > 5
    spec = client.get("object_info/CREPS_LoadFavourite")["CREPS_LoadFavourite"]["input"]["required"]["name"]
    assert "evening lake" in spec[1].get("options", spec[0])

    prompt = keeping(8, "other")
    prompt["2"] = node("LoadFavourite", model=["1", 0], name="evening lake")
    assert outcome(client.run(prompt))[0] == "execution_success"
    place = host.base / "output" / "creps_latents" / "favourites"
    for name in ("evening lake", "other"):
        kept = load_latents(place / f"{name}.safetensors", generator)
        torch.testing.assert_close(kept.ws, sample(generator, [7]).cpu(), atol=1e-5, rtol=1e-5)

    kind, message = outcome(client.run(keeping(9, "evening lake")))
    assert kind == "execution_error"
    assert "there is a favourite 'evening lake' already" in message
    assert outcome(client.run(keeping(9, "evening lake", replace=True)))[0] == "execution_success"
    kept = load_latents(place / "evening lake.safetensors", generator)
    torch.testing.assert_close(kept.ws, sample(generator, [9]).cpu(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["", "..", "a/b", "../up", "a\\b", "x" * 200])
def test_a_name_that_is_none_is_refused_before_anything_runs(client: ComfyClient, name: str) -> None:
    from comfy_host import HostError

    with pytest.raises(HostError, match="write a name"):
        client.queue(keeping(1, name))


def test_the_chosen_latent_of_a_sheet(client: ComfyClient) -> None:
    generator = load_builtin("alpine")
    prompt = {
        "1": node("LoadGenerator", checkpoint="builtin: alpine"),
        "2": node("SampleLatents", model=["1", 0], seed=20, batch_size=4, truncation_psi=1.0),
        "3": node("ContactSheet", model=["1", 0], latent=["2", 0], side=48, columns=2, choice=2),
        "4": node("SaveLatents", latent=["3", 1], filename_prefix="chosen"),
    }
    history = client.run(prompt)
    assert outcome(history)[0] == "execution_success", outcome(history)
    chosen = load_latents(history["outputs"]["4"]["text"][0], generator)
    assert chosen.seeds == [22]
    torch.testing.assert_close(chosen.ws, sample(generator, [22]).cpu(), atol=1e-5, rtol=1e-5)
    (page,) = history["outputs"]["3"]["creps_sheet"]
    with Image.open(io.BytesIO(client.view(page["image"]))) as sheet:
        assert sheet.size == (page["width"], page["height"])
    assert [cell[2:] for cell in page["cells"]] == [[48, 48]] * 4
