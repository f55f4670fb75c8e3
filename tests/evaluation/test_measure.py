"""The metrics of the papers: against torch-fidelity's command line and closed forms, by the command line."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import fidelity_library
import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import load_generator, save_generator
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.evaluation import fidelity, sets, weights
from comfyui_creps.creps_core.evaluation.chunks import RowsDone, collect_rows
from comfyui_creps.creps_core.evaluation.measure import measure_metrics, prepare_metrics
from comfyui_creps.creps_core.evaluation.metrics import METRICS, Metric, MetricKind, MetricResult, parse_metrics
from comfyui_creps.creps_core.evaluation.networks import FeatureNetworks, NetworkLoader, WeightFiles
from comfyui_creps.creps_core.evaluation.path_length import PathSteps, perceptual_path_length
from comfyui_creps.creps_core.evaluation.real_features import RealFeatures
from comfyui_creps.creps_core.evaluation.request import Workspace
from comfyui_creps.creps_core.evaluation.rows import FEATURE_ROWS
from comfyui_creps.creps_core.evaluation.sets import GeneratedImages, RealImages
from comfyui_creps.creps_core.network import LabelSet
from comfyui_creps.creps_core.training import Process
from networks import make_generator
from paths import ROOT
from PIL import Image
from scenes import scenes, write

FAKES, REALS = 40, 60


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a generator, real images, and the images of its seeds; caches elsewhere are not visible."""
    monkeypatch.setenv("CREPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    generator = make_generator()
    save_generator(generator, tmp_path / "g.safetensors")
    write(tmp_path / "reals", scenes(REALS, 0))
    fakes = GeneratedImages(generator, side=32).images(0, FAKES)
    write(tmp_path / "fakes", fakes)
    return tmp_path


@pytest.fixture
def inception(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weight file of the small extractor, which replaces Inception."""
    fidelity_library.need()
    return fidelity_library.small_extractor(monkeypatch, work / "small.pth")


def evaluate(work: Path, *words: object, out: str = "out") -> dict:
    command = [
        "evaluate",
        "--checkpoint",
        work / "g.safetensors",
        "--data",
        work / "reals",
        "--out",
        work / out,
    ]
    assert main([str(word) for word in (*command, "--device", "cpu", *words)]) == 0
    return json.loads((work / out / "metrics.json").read_text())


def found(result: dict) -> dict[str, dict]:
    return {each["metric"]: each for each in result["metrics"]}


# -- the library's own numbers ---------------------------------------------------------------------


def check(result: dict, theirs: dict[str, float], count: int) -> None:
    names = {
        "frechet_inception_distance": ("fid", f"fid{count}"),
        "kernel_inception_distance_mean": ("kid", f"kid{count}"),
        "kernel_inception_distance_std": ("kid", "deviation"),
        "inception_score_mean": ("isc", f"isc{count}"),
        "inception_score_std": ("isc", "deviation"),
        "precision": ("prc", "precision"),
        "recall": ("prc", "recall"),
    }
    ours = found(result)
    for name, value in theirs.items():
        if name != "f_score":
            kind, field = names[name]
            assert ours[f"{kind}{count}"][field] == pytest.approx(value, rel=1e-3, abs=1e-9), name


def theirs(work: Path, weights: Path, count: int, *metrics: str) -> dict[str, float]:
    return fidelity_library.command_line(
        *("--input1", work / "fakes", "--input2", work / "reals", "--fid", "--kid", "--prc", *metrics),
        *("--feature-extractor", "inception-v3-compat", "--feature-extractor-weights-path", weights),
        *("--kid-subset-size", count),
    )


def test_the_numbers_are_those_of_torch_fidelitys_command(work: Path, inception: Path):
    metrics = ["--metrics", "fid,kid,isc,prc", "--count", FAKES, "--inception", inception]
    expected = theirs(work, inception, FAKES, "--isc")
    assert expected["frechet_inception_distance"] > 0.1
    check(evaluate(work, *metrics), expected, FAKES)
    folder = ["--pictures", work / "fakes", "--side", 32, "--data", work / "reals", "--out", work / "two"]
    assert main([str(word) for word in ("evaluate", *folder, "--device", "cpu", *metrics)]) == 0
    check(json.loads((work / "two" / "metrics.json").read_text()), expected, FAKES)


def test_with_the_inception_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real architecture with random weights; few images, since each takes half a second."""
    fidelity_library.need()
    monkeypatch.setenv("CREPS_CACHE", str(tmp_path / "cache"))
    weights = fidelity_library.inception_file(tmp_path / "random.pth")
    write(tmp_path / "fakes", scenes(5, 1, 48))
    write(tmp_path / "reals", scenes(5, 2, 48))
    command = ["evaluate", "--pictures", "fakes", "--data", "reals", "--side", "48", "--metrics", "fid,kid,prc"]
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--inception", str(weights), "--out", "out", "--device", "cpu"]) == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found(result)["fid5"]["generated"] == found(result)["fid5"]["real"] == 5
    check(result, theirs(tmp_path, weights, 5), 5)


def test_with_a_trained_network(work: Path, monkeypatch: pytest.MonkeyPatch):
    """Features of EfficientNet-Lite0, trained on ImageNet, against the library's `calculate_metrics` on the folders."""
    fidelity_library.need()
    import torch_fidelity

    name = fidelity_library.register_efficientnet(monkeypatch)
    network = torch_fidelity.registry.FEATURE_EXTRACTORS_REGISTRY[name](name, ["features"]).eval()
    extractor = fidelity.Extractor(network, name, ("features",), name, "0", False)
    networks = FeatureNetworks({"fid": extractor, "kid": extractor, "prc": extractor})
    images, reals = (RealImages(work / folder, side=32) for folder in ("fakes", "reals"))
    metrics = parse_metrics("fid,kid,prc", FAKES)
    numbers = measure_metrics(images, reals, metrics, networks, Workspace(work / "a", work / "b"))
    theirs = torch_fidelity.calculate_metrics(
        input1=str(work / "fakes"),
        input2=str(work / "reals"),
        feature_extractor=name,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=FAKES,
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
    )
    check({"metrics": [number.to_dict() for number in numbers]}, theirs, FAKES)
    assert numbers[0].value > 10


def test_frechet_distance_of_gaussians():
    """Between normal distributions with commuting covariances it is |m - n|^2 + sum (sqrt a - sqrt b)^2."""
    fidelity_library.need()
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    a, b = rng.uniform(0.1, 3, (2, 12))
    m, n = rng.normal(size=(2, 12))
    one = {"mu": m, "sigma": turn * a @ turn.T}
    two = {"mu": n, "sigma": turn * b @ turn.T}
    expected = ((m - n) ** 2).sum() + ((a**0.5 - b**0.5) ** 2).sum()
    assert fidelity.frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)
    normal = torch.from_numpy(rng.normal(size=(200_000, 3)).astype(np.float32))
    found = fidelity.frechet_distance(
        fidelity.feature_moments(normal * 2 + 1), fidelity.feature_moments(normal.flip(0))
    )
    assert found == pytest.approx(3 + 3, rel=0.02)


def test_a_dataset_split_in_two(work: Path, inception: Path):
    """Halves of a set have nearly the same distribution, other images do not; a set has no distance to itself."""
    images = scenes(400, 0)
    write(work / "one", images[::2])
    write(work / "two", images[1::2])

    def distance(images: str, reals: str) -> float:
        words = ["--pictures", images, "--data", reals, "--side", 32, "--out", "split", "--inception", inception]
        words = [str(work / word) if word in ("one", "two", "fakes", "split") else str(word) for word in words]
        assert main(["evaluate", *words, "--metrics", "fid", "--device", "cpu"]) == 0
        result = json.loads((work / "split" / "metrics.json").read_text())
        return result["metrics"][0][result["metrics"][0]["metric"]]

    halves, other, same = distance("one", "two"), distance("fakes", "two"), distance("one", "one")
    assert abs(same) < 1e-6
    assert 0 < halves < other / 20


# -- the protocol ----------------------------------------------------------------------------------


def test_names_and_counts():
    assert [metric.name for metric in parse_metrics("fid, kid5k,prc1234,isc50k_full,swd,ppl", 2000)] == [
        *("fid2k", "kid5k", "prc1234", "isc50k", "swd", "ppl2k"),
    ]
    assert [metric.count for metric in parse_metrics("fid,swd,scale")] == [50_000, 4096, 4]
    for text, message in (("fd", "'fd'"), ("", "no metric"), ("fid,fid5k", "twice"), ("fid0", "1 to")):
        with pytest.raises(ValueError, match=message):
            parse_metrics(text)


def test_the_table_of_metrics():
    """Every entry says how it is computed, and the documentation has a line for each."""
    for name, kind in METRICS.items():
        assert name == kind.name
        assert (kind.compute is None) == (kind.rows is None) == (kind.load is None) == (not kind.needs_weights)
        assert (kind.section is None) != (kind.rows is None)
        assert bool(kind.snapshot_value) == (kind.section is not None and not kind.not_in_training)
    lines = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").splitlines()
    first = lines.index("| metric | definition | needs |") + 2
    assert [line.split("`")[1] for line in lines[first : first + len(METRICS)]] == list(METRICS)
    assert lines[first + len(METRICS)] == ""


def test_a_new_metric_is_one_entry(work: Path, inception: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The distance between the means of the features, through names, cache, report and JSON."""

    def compute(rows: torch.Tensor, reals: RealFeatures, column: str) -> MetricResult:
        return MetricResult((rows.mean(0) - reals.rows(column).mean(0)).norm().item(), {"features": rows.shape[1]})

    kind = MetricKind("mfd", "mean feature distance", needs_weights=True, load=NetworkLoader.inception,
                      rows=FEATURE_ROWS, compute=compute)  # fmt: skip
    monkeypatch.setitem(METRICS, "mfd", kind)
    result = evaluate(work, "--metrics", "mfd,isc", "--count", 20, "--inception", inception)["metrics"]
    extractor = NetworkLoader(WeightFiles(inception=inception), torch.device("cpu")).inception()
    sets = GeneratedImages(load_generator(work / "g.safetensors"), side=32), RealImages(work / "reals", side=32)
    means = [
        extractor(images.images(0, count))["2048"].mean(0) for images, count in zip(sets, (20, REALS), strict=True)
    ]
    assert result[0]["mfd20"] == pytest.approx((means[0] - means[1]).norm().item(), rel=1e-4)
    assert (result[0]["features"], result[0]["real"]) == (24, REALS)
    assert [each["metric"] for each in result] == ["mfd20", "isc20"]
    assert "Compare it only with mfd20" in capsys.readouterr().out


def test_mirrored_images_count_too(work: Path, inception: Path):
    """As if they were in the folder; the default follows run.json."""
    metric = ["--metrics", "fid", "--count", 20, "--inception", inception]
    flipped = [Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT) for path in (work / "reals").iterdir()]
    both = work / "both"
    write(both, scenes(REALS, 0))
    for number, image in enumerate(flipped):
        image.save(both / f"flipped{number:03}.png")
    mirrored = evaluate(work, *metric, "--mirror")["metrics"][0]
    (work / "run.json").write_text('{"data": {"mirror": true}}')
    assert evaluate(work, *metric)["metrics"][0] == mirrored
    assert (mirrored["real"], mirrored["mirrored"]) == (REALS, True)
    plain = evaluate(work, *metric, "--no-mirror")["metrics"][0]
    with_copies = evaluate(work, *metric, "--no-mirror", "--data", both)["metrics"][0]
    assert with_copies["fid20"] == pytest.approx(mirrored["fid20"], rel=1e-6)
    assert plain["fid20"] != pytest.approx(mirrored["fid20"], rel=1e-3)


def test_labels_are_drawn_as_in_the_dataset(work: Path, inception: Path, capsys):
    """For a generator that does not know the frequencies of its labels."""
    labels = {"labels": [[f"{n:03}.png", 0 if n < 54 else 2] for n in range(REALS)]}
    (work / "reals" / "dataset.json").write_text(json.dumps(labels))
    known = RealImages(work / "reals", side=32).labels()
    assert known is not None
    assert known.counts.tolist() == [54, 6]
    generator = make_generator(c_dim=3)
    set_ = GeneratedImages(generator, side=8, labels=known)
    with set_.drawing_labels():
        assert isinstance(generator.labels, LabelSet)
        drawn = torch.stack([generator.labels.draw(seed, 3) for seed in range(500)]).mean(0)
    assert generator.labels is None
    assert drawn.tolist() == pytest.approx([0.9, 0, 0.1], abs=0.05)
    save_generator(generator, work / "g.safetensors")
    evaluate(work, "--metrics", "fid", "--count", 10, "--inception", inception)
    assert "labels drawn by the seed, as often as in the data set" in capsys.readouterr().out


def test_the_description_of_a_value(work: Path, inception: Path, capsys):
    evaluate(work, "--metrics", "fid,kid,isc,prc", "--count", 30, "--seed", 7, "--inception", inception)
    text = capsys.readouterr().out
    for words in ("torch-fidelity", "small.pth, not the published weights", "30 generated pictures (seeds 7 to 36)"):
        assert text.count(words) == 4
    assert "against all 60 of reals; 32 x 32, 8 bits; rendered in float32" in text
    assert text.count("Compare it only with") == 4
    facts = {"published_weights": True, "extractor": fidelity.INCEPTION}
    assert "only with fid5k" in Metric(METRICS["fid"], 5000).comparison(facts)
    assert "may be compared with the papers' (fid50k_full)" in Metric(METRICS["fid"], 50_000).comparison(facts)
    assert "VGG-16" in Metric(METRICS["prc"], 50_000).comparison(facts)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(work: Path, inception: Path, channels: int):
    """Grey is repeated in three channels, transparent images are composited on grey."""
    save_generator(make_generator(img_channels=channels), work / "g.safetensors")
    one = evaluate(work, "--metrics", "fid", "--count", 20, "--inception", inception)["metrics"][0]["fid20"]
    clear = torch.tensor([200, 100, 0, 0] if channels == 4 else [77], dtype=torch.uint8).view(1, channels, 1, 1)
    assert sets.as_rgb(clear).flatten().tolist() == ([128] * 3 if channels == 4 else [77] * 3)
    assert one > 0


# -- long work -------------------------------------------------------------------------------------


def test_features_of_real_images_are_cached(work: Path, inception: Path, monkeypatch: pytest.MonkeyPatch):
    metric = ["--metrics", "fid,isc", "--count", 30, "--inception", inception]
    first = evaluate(work, *metric)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    with monkeypatch.context() as patch:
        patch.setattr(sets, "open_dataset", opened)
        assert evaluate(work, *metric)["metrics"] == first["metrics"]
    kept = list((work / "cache" / "metrics").glob("*/rows-*"))
    assert kept == []  # statistics are enough
    more = evaluate(work, "--metrics", "fid,kid", "--count", 30, "--inception", inception)
    assert more["metrics"][0] == first["metrics"][0]
    assert list((work / "cache" / "metrics").glob("*/rows-*"))
    Image.fromarray(scenes(1, 99)[0].permute(1, 2, 0).numpy()).save(work / "reals" / "another.png")
    assert evaluate(work, *metric)["metrics"][0]["real"] == REALS + 1
    assert not (work / "out" / "unfinished").exists() or not any((work / "out" / "unfinished").iterdir())


def test_stopped_work_is_resumed(work: Path, inception: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    caplog.set_level("INFO", "CREPS")
    monkeypatch.setattr(collect_rows, "__kwdefaults__", {**(collect_rows.__kwdefaults__ or {}), "chunk": 16})
    metric = ["--metrics", "fid,isc", "--count", FAKES, "--inception", inception]
    whole = evaluate(work, *metric, out="whole")
    made: list[int] = []
    render = GeneratedImages.images

    def some(self: GeneratedImages, start: int, stop: int) -> torch.Tensor:
        made.append(start)
        if len(made) == 3:
            raise KeyboardInterrupt
        return render(self, start, stop)

    monkeypatch.setattr(GeneratedImages, "images", some)
    command = [
        "evaluate",
        "--checkpoint",
        work / "g.safetensors",
        "--data",
        work / "reals",
        "--out",
        work / "out",
    ]
    assert main([str(word) for word in (*command, *metric, "--device", "cpu")]) == 130
    assert "the same command resumes" in caplog.text
    assert not (work / "out" / "metrics.json").exists()
    assert evaluate(work, *metric)["metrics"] == whole["metrics"]
    assert "resuming: 32 of 40 are done" in caplog.text
    assert made == [0, 16, 32, 32]


def test_processes_share_the_work(tmp_path: Path):
    barrier, results, shares = threading.Barrier(2), {}, {0: [], 1: []}

    class Half(Process):
        def wait(self) -> None:
            barrier.wait(60)

    def run(rank: int) -> None:
        def work(start: int, stop: int, rows_done: RowsDone) -> dict[str, torch.Tensor]:
            shares[rank].append(start)
            return {"n": torch.arange(start, stop)}

        results[rank] = collect_rows(work, 103, tmp_path, ("n",), process=Half(rank, 2), chunk=10)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(results[0]["n"], torch.arange(103))
    assert results[1] == {}
    assert shares == {0: list(range(0, 103, 20)), 1: list(range(10, 103, 20))}
    more = collect_rows(lambda start, stop, step: {"n": torch.arange(start, stop)}, 130, tmp_path, ("n",), chunk=10)
    assert torch.equal(more["n"], torch.arange(130))


def test_path_lengths_are_the_librarys(monkeypatch: pytest.MonkeyPatch):
    """The library's `calculate_ppl` on the same pairs of styles, with a plain distance instead of LPIPS."""
    fidelity_library.need()
    import torch_fidelity
    from torch_fidelity import registry

    generator = make_generator()
    paths = PathSteps(GeneratedImages(generator, side=16), lambda a, b: (a - b).square().mean((1, 2, 3)), 1e-2)
    steps = paths.rows(0, 20)["step"]
    ends = [w.flatten(1) for w in paths.ends(0, 20)]

    class Similarity(torch_fidelity.SampleSimilarityBase):
        def __init__(self, name: str, **_: object):
            super().__init__(name)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).square().mean((1, 2, 3))

    class Model(torch_fidelity.GenerativeModelBase):
        z_size, z_type, num_classes = ends[0].shape[1], "styles", 0

        def forward(self, w: torch.Tensor) -> torch.Tensor:
            from comfyui_creps.creps_core import render

            ws = w.view(len(w), generator.config.num_ws, -1)
            return (render(generator, ws, height=16, width=16) + 1) * 127.5

    monkeypatch.setitem(registry.NOISE_SOURCE_REGISTRY, "styles", lambda rng, shape: ends.pop(0))
    monkeypatch.setitem(registry.SAMPLE_SIMILARITY_REGISTRY, "plain", Similarity)
    theirs = torch_fidelity.calculate_metrics(
        input1=Model(),
        input1_model_num_samples=20,
        input1_model_z_size=Model.z_size,
        ppl=True,
        cuda=False,
        verbose=False,
        ppl_epsilon=1e-2,
        ppl_sample_similarity="plain",
        ppl_discard_percentile_lower=None,
        ppl_discard_percentile_higher=None,
        ppl_reduction="none",
    )["perceptual_path_length_raw"]
    assert steps.tolist() == pytest.approx(theirs.tolist(), rel=1e-3)
    many = torch.arange(1000.0).double()
    assert perceptual_path_length(many)[0] == pytest.approx(many[9:991].mean().item())  # of the percentiles 1 to 99


def lpips_files(folder: Path) -> tuple[Path, Path]:
    """Random weights for LPIPS and for the part of VGG-16 that it uses."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in vgg16().state_dict().items() if name.startswith("features.")}
    generator = torch.Generator().manual_seed(0)
    vgg = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
    lins = {
        f"lin{n}.model.1.weight": torch.rand(1, channels, 1, 1, generator=generator)
        for n, channels in enumerate((64, 128, 256, 512, 512))
    }
    torch.save(lins, folder / "lpips.pth")
    torch.save(vgg, folder / "vgg.pth")
    return folder / "lpips.pth", folder / "vgg.pth"


def test_path_lengths_of_the_command(work: Path):
    """The library's LPIPS with given weights equals the formula of its paper, computed here from a plain VGG-16."""
    fidelity_library.need()
    lpips_file, vgg_file = lpips_files(work)
    files = ["--lpips", lpips_file, "--vgg", vgg_file]
    found = evaluate(work, "--metrics", "ppl6", "--side", 64, *files)["metrics"][0]
    assert found["ppl6"] > 0
    assert (found["seeds"], found["rendered_in"]) == ("0 to 11, in pairs", "float32")
    lpips = fidelity.make_lpips(
        weights.read_weights("lpips", lpips_file), weights.read_weights("vgg", vgg_file), torch.device("cpu")
    )
    a, b = scenes(2, 3, 64).float().split(1)
    assert lpips(a, a).item() == 0
    state, lins = torch.load(vgg_file, weights_only=True), torch.load(lpips_file, weights_only=True)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (torch.cat([a, b]) / 255 - mean) / deviation
    total, level = 0.0, 0
    for layer in range(30):  # 3 x 3 convolutions, rectifiers, and poolings where the channels change
        if f"features.{layer}.weight" in state:
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            x = torch.nn.functional.conv2d(x, weight, bias, padding=1).relu()
        elif layer in (4, 9, 16, 23):
            x = torch.nn.functional.max_pool2d(x, 2)
        if layer in (3, 8, 15, 22, 29):
            unit = x / x.norm(dim=1, keepdim=True)
            total += ((unit[0] - unit[1]).square() * lins[f"lin{level}.model.1.weight"][0]).sum(0).mean().item()
            level += 1
    assert lpips(a, b).item() == pytest.approx(total, rel=1e-3)
    wrong = evaluate(work, "--metrics", "ppl6", "--lpips", vgg_file, "--vgg", vgg_file, "--sides", 32)
    assert "not the weights of VGG-16 and LPIPS" in wrong["not_measured"]["ppl6"]


# -- weights ---------------------------------------------------------------------------------------


def test_without_weights_distances_and_a_reason_are_reported(work: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    def fetched(*_: object, **__: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetched)
    fidelity_library.need()
    result = evaluate(work, "--metrics", "fid5k,ppl", "--count", 20, "--sides", 32)
    text = capsys.readouterr().out
    assert "fid5k: not measured: needs the weights weights-inception-2015-12-05-6726825d.pth" in text
    assert "https://github.com/toshas/torch-fidelity/releases" in text
    assert "--inception" in text
    assert "--download" in text
    assert "ppl20: not measured: needs the weights weights-vgg16-lpips.pth" in text
    assert "sliced Wasserstein distances" in text
    assert "halves of the data set" in text
    assert result["metrics"] == []
    assert set(result["not_measured"]) == {"fid5k", "ppl20"}
    assert result["distances"][0]["generated"]["mean"] > result["distances"][0]["training"]["mean"]


def test_without_the_library_a_reason_is_reported(work: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(fidelity.importlib, "import_module", missing)
    evaluate(work, "--metrics", "fid", "--count", 10, "--sides", 32)
    assert "pip install --no-deps torch-fidelity tqdm" in capsys.readouterr().out


class Harm:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def refusal(weights: Path) -> str:
    files = WeightFiles(inception=weights)
    usable, _, refused = prepare_metrics([Metric(METRICS["fid"], 10)], files, torch.device("cpu"))
    assert usable == []
    return refused["fid10"]


def test_files_of_weights_run_nothing(work: Path, inception: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(work)
    files = {
        "harm.pth": lambda path: torch.save({"a": Harm()}, path),
        "plain.pth": lambda path: path.write_bytes(pickle.dumps(Harm())),
        "text.pth": lambda path: path.write_text("no weights"),
        "list.pth": lambda path: torch.save([torch.zeros(1)], path),
        "other.pth": lambda path: torch.save({"a": torch.zeros(1)}, path),
    }
    for name, make in files.items():
        make(work / name)
        reason = refusal(Path(name))
        assert name in reason
        assert "weights" in reason
    assert not (work / "harm").exists()
    assert "no such file" in refusal(Path("nowhere.pth"))


def test_weights_as_safetensors(work: Path, inception: Path):
    from safetensors.torch import save_file

    save_file(torch.load(inception, weights_only=True), work / "small.safetensors")
    metric = ["--metrics", "fid", "--count", 20, "--inception"]
    one, two = (evaluate(work, *metric, file)["metrics"][0] for file in (inception, work / "small.safetensors"))
    assert one["fid20"] == two["fid20"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "fid", "--count", "0"], "--count must be at least 1"),
        (["--metrics", "isc9", "--inception", "SMALL"], "isc takes 10 generated pictures at least, not 9"),
        (["--metrics", "fud"], "there is no metric 'fud'"),
        (["--metrics", "fid", "--held-out", "DATA"], "the same pictures"),
        (["--metrics", "fid", "--data", "nowhere"], "nowhere"),
        ([], "--held-out"),
    ],
)
def test_what_is_refused(work: Path, inception: Path, words: list[str], message: str, caplog):
    words = [{"DATA": str(work / "reals"), "SMALL": str(inception)}.get(word, word) for word in words]
    command = ["evaluate", "--builtin", "textures", "--data", str(work / "reals"), "--out", str(work / "out")]
    assert main([*command, *words]) == 1
    assert message in caplog.text
    assert not (work / "out").exists()
