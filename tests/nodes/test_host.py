"""Tier 2: the pack inside a real ComfyUI (see host/comfy_host.py for where it comes from).

tests/host/object_info.json is what the host says about our nodes: node ids, inputs, their order and defaults.
Saved workflows depend on all of it, so a difference is a change of the public interface. To accept it:
    pytest tests/nodes/test_host.py --update-object-info
"""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from comfyui_creps.creps_core import Generator, load_builtin, load_generator, render, sample, save_generator
from comfyui_creps.creps_core.evaluation.patch_statistics import describe
from comfyui_creps.creps_core.evaluation.sliced_wasserstein import sliced_wasserstein
from networks import make_generator
from paths import ROOT
from PIL import Image, ImageChops, ImageStat
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from comfy_host import ComfyClient, ComfyHost

OBJECT_INFO = ROOT / "tests" / "host" / "object_info.json"
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
PROMPTS = sorted((ROOT / "workflows" / "api").glob("*.json"))

# An interrupt is obeyed between strips. Far below the time of the whole render, far above that of a strip.
INTERRUPT_LIMIT_S = 20
LARGE = {"width": 8192, "height": 8192}

FILE_NAME = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|pkl|png|jpe?g|webp|mp4|wav)$", re.IGNORECASE)

Prompt = dict[str, Any]


@pytest.fixture(scope="module")
def host(
    start_comfyui: Callable[..., AbstractContextManager[ComfyHost]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyHost]:
    base = tmp_path_factory.mktemp("comfyui")
    add_files_of_a_user(base)
    with start_comfyui(base) as running:
        yield running


def add_files_of_a_user(base: Path) -> None:
    """What some workflows ask the user for, under the names that they ask for; small stand-ins."""
    for folder in ("models/creps", "models/upscale_models", "input"):
        (base / folder).mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "golden" / "official_layout.pkl", base / "models/creps/creps-ffhq-512x512.pkl")
    ramp = Image.linear_gradient("L")
    Image.merge("RGB", [ramp, ramp.rotate(90), ramp.rotate(180)]).save(base / "input/example.png")
    # An upscaler of the architecture that ComfyUI knows as SRVGGNetCompact, 4 x, with random weights.
    torch.manual_seed(0)
    weights = {}
    for i, (inputs, outputs) in zip((0, 2, 4, 6), ((3, 16), (16, 16), (16, 16), (16, 48)), strict=True):
        weights[f"body.{i}.weight"] = torch.randn(outputs, inputs, 3, 3) / (10 * inputs**0.5)
        weights[f"body.{i}.bias"] = torch.zeros(outputs)
        if i < 6:
            weights[f"body.{i + 1}.weight"] = torch.full((outputs,), 0.25)
    save_file(weights, base / "models/upscale_models/RealESRGAN_x4plus.safetensors")


def prompt_with(class_type: str, **inputs: Any) -> tuple[Prompt, str]:
    """A bundled prompt that samples latents and has exactly one such node, some inputs of it replaced; and its id."""
    for file in PROMPTS:
        prompt = json.loads(file.read_text(encoding="utf-8"))
        nodes = [node_id for node_id, node in prompt.items() if node["class_type"] == class_type]
        if len(nodes) == 1 and any(node["class_type"] == "CREPS_SampleLatents" for node in prompt.values()):
            prompt[nodes[0]]["inputs"].update(inputs)
            return prompt, nodes[0]
    return pytest.skip(f"no workflow with one {class_type}")


def is_flat(picture: Image.Image) -> bool:
    """Whether a picture shows one brightness all over, or nearly."""
    return ImageStat.Stat(picture.convert("L")).stddev[0] < 4


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two small pictures, in levels of 8 bits."""
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean) / 3


PROBE_SIDE = 48
LEAST_CHANGE = 1.0  # levels: what a person sees when two pictures stand side by side
CHANGES = {"CREPS_EditLatents": "latent", "CREPS_TruncateLatents": "latent", "CREPS_MixStyles": "latent_a"}
"""Nodes whose latents show something else than those of this input."""


def add_probes(prompt: Prompt) -> tuple[list[str], list[tuple[str, str]]]:
    """Have a prompt also show small what its sheets, films and edits are made of.

    Returns:
        Nodes that show batches, in which each picture must differ from the next; pairs of nodes that must differ.
    """

    def add(kind: str, **inputs: Any) -> str:
        node_id = f"probe {len(prompt)}"
        prompt[node_id] = {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}
        return node_id

    def show(latent: list[Any]) -> str:
        model = next(node_id for node_id, node in prompt.items() if node["class_type"] == "CREPS_LoadGenerator")
        size = {"width": PROBE_SIDE, "height": PROBE_SIDE, "fit": "crop", "supersample": 1}
        return add("PreviewImage", images=[add("CREPS_Render", model=[model, 0], latent=latent, **size), 0])

    batches, pairs = [], []
    for node_id, node in list(prompt.items()):
        inputs = node["inputs"]
        if node["class_type"] == "CREPS_ContactSheet":
            batches.append(show(inputs["latent"]))
        elif node["class_type"] == "CreateVideo":
            size = {"width": PROBE_SIDE, "height": PROBE_SIDE, "upscale_method": "area", "crop": "disabled"}
            batches.append(add("PreviewImage", images=[add("ImageScale", image=inputs["images"], **size), 0]))
        elif node["class_type"] in CHANGES:
            pairs.append((show(inputs[CHANGES[node["class_type"]]]), show([node_id, 0])))
    return batches, pairs


def ended_with(history: dict[str, Any]) -> str:
    """The last message about a prompt: execution_success, execution_error or execution_interrupted."""
    return history["status"]["messages"][-1][0]


def test_pack_is_loaded(host: ComfyHost) -> None:
    from comfy_host import PACK_NAME

    assert PACK_NAME in host.startup_log
    assert "IMPORT FAILED" not in host.startup_log
    assert "Traceback" not in host.startup_log


def without_files(value: Any) -> Any:
    """`value` without what depends on the machine: the files that a choice offers."""
    if isinstance(value, dict):
        return {key: without_files(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_files(item) for item in value if not FILE_NAME.search(str(item))]
    return value


def used_types(workflow: dict[str, Any]) -> set[str]:
    """Node types of a workflow in UI format, those inside its subgraphs included."""
    graphs = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    return {node["type"] for graph in graphs for node in graph["nodes"]}


def test_object_info_is_as_recorded(client: ComfyClient, request: pytest.FixtureRequest) -> None:
    from comfy_host import PACK_NAME

    used = set().union(*(used_types(json.loads(file.read_text(encoding="utf-8"))) for file in WORKFLOWS))
    live = {
        name: without_files(node)
        for name, node in sorted(client.get("object_info").items())
        if name.startswith("CREPS_") or name in used
    }
    for node in live.values():  # the folder may have another name here
        node["python_module"] = node["python_module"].replace(f"custom_nodes.{PACK_NAME}", "custom_nodes.ComfyUI-CREPS")
    version = client.get("system_stats")["system"]["comfyui_version"]
    if request.config.getoption("--update-object-info"):
        OBJECT_INFO.write_text(json.dumps({"comfyui": version, "nodes": live}, indent=1) + "\n")
    recorded = json.loads(OBJECT_INFO.read_text())
    assert live == recorded["nodes"], f"recorded with ComfyUI {recorded['comfyui']}, this is {version}"
    assert json.dumps(live) == json.dumps(recorded["nodes"]), "the order of inputs has changed"


@pytest.mark.parametrize("file", PROMPTS, ids=lambda file: file.stem)
def test_workflow_runs(file: Path, client: ComfyClient) -> None:
    """All outputs are there, none is flat, and what should differ differs."""
    prompt = json.loads(file.read_text(encoding="utf-8"))
    batches, pairs = add_probes(prompt)
    history = client.run(prompt)
    assert ended_with(history) == "execution_success", history["status"]

    info = client.get("object_info")
    outputs = history["outputs"]
    for node_id, node in prompt.items():
        if info[node["class_type"]]["output_node"]:
            assert outputs.get(node_id), f"{node['class_type']} (node {node_id}) yielded nothing"
    files = [item for output in outputs.values() for item in output.get("images", [])]
    assert files, "no pictures"
    for item in files:
        content = client.view(item)
        if item["filename"].endswith(".mp4"):
            assert len(content) > 10_000
        else:
            assert not is_flat(Image.open(io.BytesIO(content))), f"{item['filename']} is flat"

    def pictures(node_id: str) -> list[Image.Image]:
        return [Image.open(io.BytesIO(client.view(item))) for item in outputs[node_id]["images"]]

    for shown in map(pictures, batches):
        assert len(shown) > 1
        alike = [i for i, (one, other) in enumerate(pairwise(shown)) if difference(one, other) < LEAST_CHANGE]
        assert not alike, f"pictures {alike} of {len(shown)} are like the next ones"
    for one, other in pairs:
        assert difference(pictures(one)[0], pictures(other)[0]) >= LEAST_CHANGE


def test_large_render_can_be_interrupted(client: ComfyClient) -> None:
    prompt, render = prompt_with("CREPS_Render", **LARGE)
    prompt_id = client.queue(prompt)
    interrupted_at = None
    for kind, data in client.events(prompt_id):
        progress = data["nodes"].get(render, {}) if kind == "progress_state" else {}
        if interrupted_at is None and 0 < progress.get("value", 0) < progress.get("max", 0):
            client.interrupt()
            interrupted_at = time.monotonic()
    assert interrupted_at is not None, "the render ended, or failed, before it showed progress"
    assert time.monotonic() - interrupted_at < INTERRUPT_LIMIT_S
    assert ended_with(client.history(prompt_id)) == "execution_interrupted"

    small, _ = prompt_with("CREPS_Render", width=48, height=40)
    assert ended_with(client.run(small)) == "execution_success"


def test_garbage_checkpoint_is_explained(host: ComfyHost, client: ComfyClient) -> None:
    (host.base / "models" / "creps" / "garbage.safetensors").write_bytes(b"this is no checkpoint" * 100)
    prompt, loader = prompt_with("CREPS_LoadGenerator", checkpoint="garbage.safetensors")
    history = client.run(prompt)
    kind, error = history["status"]["messages"][-1]
    assert kind == "execution_error"
    assert error["node_id"] == loader
    assert error["exception_type"].endswith("CheckpointError")
    assert error["exception_type"] == "creps.CheckpointError"
    assert error["exception_message"].startswith("Choose a CREPS snapshot")
    assert 'garbage.safetensors: is a text file ("this is no checkpoint' in error["exception_message"]
    assert str(host.base) not in error["exception_message"]


def test_models_folders_that_cannot_be_made_are_no_reason_to_fail(tmp_path: Path, host: ComfyHost) -> None:
    """A file in the way, a dangling link; and a read-only place, unless the tests are root's."""
    from comfy_host import ComfyClient, ComfyHost, find_comfyui

    models = tmp_path / "base" / "models"
    models.mkdir(parents=True)
    (models / "creps").write_text("a file in the way")
    (models / "creps_latents").symlink_to(tmp_path / "nowhere" / "x")
    models.chmod(0o555)
    try:
        with (
            ComfyHost(find_comfyui(), pack=ROOT, base=tmp_path / "base") as other,
            ComfyClient(other.address) as client,
        ):
            assert "IMPORT FAILED" not in other.startup_log
            assert other.startup_log.count("cannot be made") >= 2
            small, _ = prompt_with("CREPS_Render", width=48, height=40)
            assert ended_with(client.run(small)) == "execution_success"
    finally:
        models.chmod(0o755)


SAVERS = {"SaveGenerator": "model", "SaveLatents": "latent", "SaveDirections": "directions", "RenderToFile": "latent"}


def saving_prompt(kind: str, prefix: str, seeds: str = "1") -> Prompt:
    """A prompt that ends in one of the nodes that write files of ours."""
    prompt = {
        "1": {"class_type": "CREPS_LoadGenerator", "inputs": {"checkpoint": "builtin: textures"}},
        "2": {"class_type": "CREPS_SampleSeeds", "inputs": {"model": ["1", 0], "seeds": seeds, "truncation_psi": 1}},
        "3": {"class_type": "CREPS_FindDirections", "inputs": {"model": ["1", 0], "method": "SeFa", "layers": "all"}},
        "4": {"class_type": f"CREPS_{kind}", "inputs": {"filename_prefix": prefix}},
    }
    prompt["3"]["inputs"]["count"] = 2
    sockets = {"model": ["1", 0], "latent": ["2", 0], "directions": ["3", 0]}
    inputs = prompt["4"]["inputs"]
    inputs[SAVERS[kind]] = sockets[SAVERS[kind]]
    if kind == "SaveGenerator":
        inputs["half"] = True
    if kind == "RenderToFile":
        inputs |= {"model": ["1", 0], "width": 40, "height": 600, "format": "png", "fit": "crop", "supersample": 1}
    return prompt


@pytest.mark.parametrize("kind", SAVERS)
@pytest.mark.parametrize(
    "prefix", ["", " ", "..", "../x", "a/../../x", "folder/", "/etc/x", "~/x", "file:///x", "n" * 300]
)
def test_prefixes_that_name_no_file_of_ours_are_refused_at_once(kind: str, prefix: str, client: ComfyClient) -> None:
    from comfy_host import HostError

    with pytest.raises(HostError, match="in filename_prefix"):
        client.queue(saving_prompt(kind, prefix))


@pytest.mark.parametrize(("kind", "loader"), [("SaveGenerator", "LoadGenerator"), ("SaveLatents", "LoadLatents")])
def test_what_is_saved_is_listed(kind: str, loader: str, client: ComfyClient) -> None:
    for prefix in ("mine", "holiday/mine", ".hidden", "it's"):
        history = client.run(saving_prompt(kind, prefix))
        assert ended_with(history) == "execution_success", history["status"]
        name = Path(history["outputs"]["4"]["text"][0]).name
        assert name in str(client.get(f"object_info/CREPS_{loader}")), name


def failed(history: dict[str, Any]) -> str:
    """What the error panel shows of a prompt that failed."""
    kind, error = history["status"]["messages"][-1]
    assert kind == "execution_error"
    return error["exception_message"]


def test_errors_say_first_what_to_do(client: ComfyClient) -> None:
    assert failed(client.run(saving_prompt("RenderToFile", "x", "1-3"))).startswith(
        "pick one latent with Select CREPS Latents (indices 0 to 2)"
    )
    prompt = saving_prompt("RenderToFile", "x")
    prompt["4"]["inputs"]["format"] = "tiff"
    history = client.run(prompt)
    if ended_with(history) != "execution_success":
        assert re.match(r'choose png, or install .* ".*python.*" -m pip install tifffile', failed(history))
    prompt = saving_prompt("SaveLatents", "x")
    prompt["2"]["inputs"]["truncation_psi"] = math.nan
    assert "truncation psi must be a number" in failed(client.run(prompt))
    prompt = saving_prompt("SaveLatents", "x")
    sizes = {"model": ["1", 0], "latent": ["2", 0], "smallest": 512, "largest": 512}
    prompt["5"] = {"class_type": "CREPS_ScaleConsistency", "inputs": sizes}
    prompt["6"] = {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}}
    assert failed(client.run(prompt)).startswith("raise largest to 1023 or more")


def test_a_cancelled_file_is_gone_on_with_after_another_of_its_prefix(host: ComfyHost, client: ComfyClient) -> None:
    prompt = saving_prompt("RenderToFile", "kept/large")
    folder = host.base / "output" / "kept"
    for power in range(12, 17):  # until it takes longer than the first entry in its journal: 5 seconds
        prompt["4"]["inputs"] |= {"width": 512, "height": 1 << power}
        prompt_id = client.queue(prompt)
        for kind, _ in client.events(prompt_id):
            if kind == "progress_state" and list(folder.glob(".creps-*.journal")):
                client.interrupt()
        if ended_with(client.history(prompt_id)) == "execution_interrupted":
            break
        shutil.rmtree(folder)
    other = saving_prompt("RenderToFile", "kept/large")
    text = client.run(other)["outputs"]["4"]["text"][0]
    assert re.search(r"large_00001_.png, \d.\d MB\n.*unfinished beside it: 512 x \d+ of textures.*rows", text)
    prompt["4"]["inputs"]["unfinished"] = "clear the others"
    text = client.run(prompt)["outputs"]["4"]["text"][0]
    assert any(re.match(r"\d+ min \d\d s left, \d+\.\d MB so far: .*large_0000\d_.png$", said) for said in client.texts)
    assert client.texts[-1] == text
    assert re.search(r"large_00002_.png, .* MB\nresumed from row \d+ of \d+", text)
    assert sorted(path.name for path in folder.iterdir()) == ["large_00001_.png", "large_00002_.png"]


def test_an_overwritten_checkpoint_is_loaded_anew(host: ComfyHost, client: ComfyClient) -> None:
    file = host.base / "models" / "creps" / "overwritten.safetensors"
    prompt, _ = prompt_with("CREPS_LoadGenerator", checkpoint=file.name)
    pictures = []
    for resolution in (16, 32):
        save_generator(make_generator(img_resolution=resolution), file)
        history = client.run(prompt)
        assert ended_with(history) == "execution_success", history["status"]
        (item,) = [item for output in history["outputs"].values() for item in output["images"]]
        pictures.append(client.view(item))
    assert pictures[0] != pictures[1]


def test_a_picture_beyond_the_memory_is_refused_with_numbers(client: ComfyClient) -> None:
    prompt, _ = prompt_with("CREPS_Render", width=16384, height=16384)
    sampler = next(node for node in prompt.values() if node["class_type"] == "CREPS_SampleLatents")
    sampler["inputs"]["batch_size"] = 1024  # three terabytes
    kind, error = client.run(prompt)["status"]["messages"][-1]
    assert kind == "execution_error"
    assert "16384 x 16384 take 3072.0 GB" in error["exception_message"]
    assert "Lower width, height" in error["exception_message"]


# Training


def training_prompt(host: ComfyHost, pictures: int, name: str, folder: str = "train") -> Prompt:
    """Fine-tunes a small generator on a folder of pictures, saves and renders it."""
    save_generator(make_generator(img_resolution=16), host.base / "models" / "creps" / "small.safetensors")
    place = host.base / "input" / "train"
    place.mkdir(exist_ok=True)
    for i in range(6):
        Image.new("RGB", (40, 30), (40 * i, 200, 255 - 40 * i)).save(place / f"{i}.png")
    (place / "broken.png").write_bytes(b"no picture")
    return {
        "1": {"class_type": "CREPS_LoadGenerator", "inputs": {"checkpoint": "small.safetensors"}, "_meta": {}},
        "2": {
            "class_type": "CREPS_TrainGenerator",
            "inputs": {
                "model": ["1", 0],
                "folder": folder,
                "run_name": name,
                "pictures": pictures,
                "resolution": 0,
                "batch": 4,
                "learning_rate": 0.002,
                "augment": "ada",
                "mirror": True,
                "seed": 0,
            },
            "_meta": {},
        },
        "3": {
            "class_type": "CREPS_SaveGenerator",
            "inputs": {"model": ["2", 0], "filename_prefix": "tuned", "half": True},
            "_meta": {},
        },
        "4": {
            "class_type": "LossGraphNode",
            "inputs": {"loss": ["2", 1], "filename_prefix": "loss"},
            "_meta": {},
        },
        "5": {"class_type": "PreviewImage", "inputs": {"images": ["2", 2]}, "_meta": {}},
    }


def test_a_generator_is_trained_and_saved_where_the_loader_finds_it(host: ComfyHost, client: ComfyClient) -> None:
    history = client.run(training_prompt(host, 40, "short"))
    assert ended_with(history) == "execution_success", history["status"]
    (report,) = history["outputs"]["2"]["text"]
    assert "6 pictures" in report
    assert "broken.png" in report
    assert "40 pictures shown" in report
    assert history["outputs"]["5"]["images"]
    options = client.get("object_info/CREPS_LoadGenerator")["CREPS_LoadGenerator"]["input"]["required"]["checkpoint"]
    (saved,) = [name for name in str(options).split("'") if name.startswith("tuned_")]
    prompt, _ = prompt_with("CREPS_LoadGenerator", checkpoint=saved)
    assert ended_with(client.run(prompt)) == "execution_success"


def test_fine_tuning_the_builtin_halves_the_distance_to_another_palette(client: ComfyClient) -> None:
    """The bundled workflow: 40 pictures of the built-in, in another light."""
    prompt = json.loads((ROOT / "workflows/api/14 Fine-tune on your pictures.json").read_text(encoding="utf-8"))
    kinds = {node["class_type"]: node["inputs"] for node in prompt.values()}
    kinds["CREPS_TrainGenerator"]["run_name"] = "distance"
    light = kinds["EmptyImage"]["color"].to_bytes(3, "big")
    began = time.monotonic()
    history = client.run(prompt)
    seconds = time.monotonic() - began
    assert ended_with(history) == "execution_success", history["status"]
    saved = next(node_id for node_id, node in prompt.items() if node["class_type"] == "CREPS_SaveGenerator")
    tuned = load_generator(history["outputs"][saved]["text"][0])
    before = load_builtin(kinds["CREPS_LoadGenerator"]["checkpoint"].removeprefix("builtin: "))

    def drawn(generator: Generator, first: int) -> Tensor:
        pictures = torch.empty(256, 3, 64, 64, dtype=torch.uint8)
        return render(generator, sample(generator, range(first, first + 256)), height=64, width=64, out=pictures)

    palette = describe((drawn(before, 1000) * torch.tensor([*light])[:, None, None] / 255).byte())
    away, near = (sliced_wasserstein(palette, describe(drawn(g, 3000)), directions=128).mean for g in (before, tuned))
    print(f"distance x 1000 to the palette: {away:.0f} before, {near:.0f} after, {seconds:.0f} s")
    assert near < away / 2


def test_a_training_that_is_cancelled_resumes(host: ComfyHost, client: ComfyClient) -> None:
    prompt = training_prompt(host, 100_000, "long")
    prompt_id, interrupted = client.queue(prompt), False
    for kind, data in client.events(prompt_id):
        progress = data["nodes"].get("2", {}) if kind == "progress_state" else {}
        if not interrupted and progress.get("max") == 100_000 and progress.get("value", 0) > 0:
            client.interrupt()
            interrupted = True
    assert ended_with(client.history(prompt_id)) == "execution_interrupted"
    (snapshot,) = (host.base / "output" / "creps_runs" / "long").glob("snapshot-*.safetensors")
    shown = int(snapshot.stem.removeprefix("snapshot-"))
    assert shown > 0
    prompt["2"]["inputs"]["pictures"] = shown + 8
    history = client.run(prompt)
    assert ended_with(history) == "execution_success", history["status"]
    assert f"{shown + 8:,} pictures shown" in history["outputs"]["2"]["text"][0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folder": "nowhere"}, "there is no folder or zip"),
        ({"folder": ""}, "link images"),
        ({"run_name": "../above"}, "run_name must be the name of a folder"),
        ({"resolution": 24}, "power of two"),
    ],
)
def test_a_training_that_cannot_begin_says_why(
    host: ComfyHost, client: ComfyClient, fields: dict, message: str
) -> None:
    prompt = training_prompt(host, 8, "bad")
    prompt["2"]["inputs"].update(fields)
    kind, error = client.run(prompt)["status"]["messages"][-1]
    assert kind == "execution_error"
    assert message in error["exception_message"]


def executed(history: dict[str, Any]) -> set[str]:
    """The nodes of a prompt that were run, not taken from the cache."""
    cached = [set(data["nodes"]) for kind, data in history["status"]["messages"] if kind == "execution_cached"]
    return set(history["prompt"][2]) - set().union(*cached)


def test_a_run_is_resumed_refused_and_resumed_on_new_data(host: ComfyHost, client: ComfyClient) -> None:
    prompt = training_prompt(host, 8, "mine", "first")
    inputs = prompt["2"]["inputs"]
    for folder, colour in (("first", 40), ("second", 200)):
        (host.base / "input" / folder).mkdir()
        for i in range(4):
            Image.new("RGB", (20, 20), (colour, 40 * i, 0)).save(host.base / "input" / folder / f"{i}.png")
    assert ended_with(client.run(prompt)) == "execution_success"

    inputs["pictures"] = 16
    assert "16 pictures shown" in client.run(prompt)["outputs"]["2"]["text"][0]
    inputs["batch"] = 8
    report = client.run(prompt)["outputs"]["2"]["text"][0]
    assert report.startswith("nothing to do: 16 of 16 pictures shown; ask for more, or choose another name")

    inputs["folder"] = "second"  # as many pictures, of the same names
    kind, error = client.run(prompt)["status"]["messages"][-1]
    assert kind == "execution_error"
    assert "these are other pictures: 4 pictures of" in error["exception_message"]
    assert 'Choose another name (run_name "mine 2"), or use new_data' in error["exception_message"]

    inputs.update(new_data=True, pictures=24)
    report = client.run(prompt)["outputs"]["2"]["text"][0]
    assert report.startswith("from 16 pictures on with other data: 4 pictures of")
    assert "24 pictures shown" in report

    other = dict(prompt, **{"1": {"class_type": "CREPS_LoadGenerator", "inputs": {"checkpoint": "builtin: textures"}}})
    other["2"] = {"class_type": "CREPS_TrainGenerator", "inputs": {**inputs, "resolution": 16}}
    kind, error = client.run(other)["status"]["messages"][-1]
    assert kind == "execution_error"
    assert "it began with small, not with textures" in error["exception_message"]


def test_what_happens_to_a_run_and_its_data_is_seen(host: ComfyHost, client: ComfyClient) -> None:
    prompt = training_prompt(host, 8, "watched", "watched")
    pictures, run = host.base / "input" / "watched", host.base / "output" / "creps_runs" / "watched"
    pictures.mkdir()
    for i in range(4):
        Image.new("RGB", (20, 20), (0, 60 * i, 0)).save(pictures / f"{i}.png")
    assert "2" in executed(client.run(prompt))
    assert "2" not in executed(client.run(prompt))
    shutil.rmtree(run)
    assert "2" in executed(client.run(prompt))
    assert (run / "generator.safetensors").exists()
    Image.new("RGB", (20, 20), (9, 9, 9)).save(pictures / "added.png")
    kind, error = client.run(prompt)["status"]["messages"][-1]
    assert kind == "execution_error"
    assert "5 pictures of" in error["exception_message"]

    # Without a name each model and each set of pictures has a run of its own.
    prompt["2"]["inputs"]["run_name"] = ""
    first = client.run(prompt)["outputs"]["2"]["text"][0]
    (pictures / "added.png").unlink()
    second = client.run(prompt)["outputs"]["2"]["text"][0]
    places = [report.splitlines()[-1] for report in (first, second)]
    assert len(set(places)) == 2
    assert all("/creps_runs/small on watched " in Path(place).as_posix() for place in places)


def test_wide_pictures_with_transparency_are_trained_and_rendered(host: ComfyHost, client: ComfyClient) -> None:
    prompt = training_prompt(host, 8, "wide", "wide")
    (host.base / "input" / "wide").mkdir()
    for i in range(4):
        Image.new("RGBA", (64, 36), (40 * i, 200, 0, 60 * i)).save(host.base / "input" / "wide" / f"{i}.png")
    prompt["2"]["inputs"].update(alpha=True, aspect="16:9")
    prompt |= {
        "6": {"class_type": "CREPS_SampleLatents", "inputs": {"model": ["2", 0], "seed": 0, "batch_size": 2}},
        "7": {
            "class_type": "CREPS_Render",
            "inputs": {"model": ["2", 0], "latent": ["6", 0], "width": 64, "height": 0},
        },
        "8": {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["7", 0], "alpha": ["7", 1]}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}},
    }
    prompt["6"]["inputs"]["truncation_psi"] = 1.0
    prompt["7"]["inputs"].update(fit="crop", supersample=1)
    history = client.run(prompt)
    assert ended_with(history) == "execution_success", history["status"]
    first, second = (Image.open(io.BytesIO(client.view(item))) for item in history["outputs"]["9"]["images"])
    assert (first.mode, first.size) == (second.mode, second.size) == ("RGBA", (64, 36))
    assert first.getchannel("A").getextrema()[0] > 200  # as opaque as it begins


def evaluation_prompt(host: ComfyHost, **inputs: Any) -> Prompt:
    """The bundled one, with 30 pictures of noise and others for values."""
    folder = host.base / "input" / "real pictures"
    folder.mkdir(exist_ok=True)
    for number in range(30):
        noise = torch.randint(0, 256, (48, 48, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f"{number}.png")
    (file,) = (file for file in PROMPTS if file.stem.endswith("Evaluate a generator"))
    prompt = json.loads(file.read_text(encoding="utf-8"))
    (node,) = (node for node in prompt.values() if node["class_type"] == "CREPS_EvaluateGenerator")
    node["inputs"] |= {"folder": "real pictures", "count": 30, "largest": 127, **inputs}
    return prompt


def test_a_generator_is_evaluated_by_what_there_is(host: ComfyHost, client: ComfyClient) -> None:
    history = client.run(evaluation_prompt(host))
    assert ended_with(history) == "execution_success", history["status"]
    (report,) = next(output["text"] for output in history["outputs"].values() if "text" in output)
    assert "sliced Wasserstein distances x 1000 from 15 held-out pictures" in report
    assert "scale consistency of 4 latents" in report
    assert re.search(r"^fid30.*: not measured: needs ", report, re.MULTILINE)
    assert any("images" in output for output in history["outputs"].values())


def test_an_evaluation_that_cannot_begin_says_why(host: ComfyHost, client: ComfyClient) -> None:
    for fields, message in (
        ({"folder": "nowhere"}, "there is no folder or zip"),
        ({"metrics": "fud"}, "there is no metric 'fud'"),
    ):
        kind, error = client.run(evaluation_prompt(host, **fields))["status"]["messages"][-1]
        assert kind == "execution_error"
        assert message in error["exception_message"]


def test_an_evaluation_is_cancelled(host: ComfyHost, client: ComfyClient) -> None:
    prompt_id, interrupted = client.queue(evaluation_prompt(host, metrics="scale", largest=8192)), 0.0
    for kind, data in client.events(prompt_id):
        states = data["nodes"].values() if kind == "progress_state" else ()
        if not interrupted and any(state["max"] == 100 and state["value"] > 0 for state in states):
            client.interrupt()
            interrupted = time.monotonic()
    assert ended_with(client.history(prompt_id)) == "execution_interrupted"
    assert time.monotonic() - interrupted < INTERRUPT_LIMIT_S
