"""Training steps against the numbers of the published trainer, and the rules around them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator

import pytest
import torch
from comfyui_creps.common.errors import TrainingError
from comfyui_creps.creps_core.network import Discriminator, DiscriminatorConfig
from comfyui_creps.creps_core.network import discriminator as discriminator_module
from comfyui_creps.creps_core.training import PHASES, Recipe, Trainer, average_for, r1_gamma_for
from comfyui_creps.creps_core.training.gradients import clean_gradients
from comfyui_creps.creps_core.training.trainer import NON_FINITE_LIMIT
from fake_graph import FakeGraph
from golden_steps import LIMITS, LOSSES, GoldenTrainer, adam_of_the_file, golden_steps
from networks import make_generator

WAYS = {"eager": (False, set()), "smoothing folded": (False, {"cpu"}), "graph": (FakeGraph, {"cpu"})}


@pytest.fixture(scope="module", params=WAYS)
def replay(request) -> Iterator[GoldenTrainer]:
    """Two steps of the published run, in every way that a device may take them."""
    make_graph, folds_on = WAYS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discriminator_module, "FOLDED_SMOOTHING", folds_on)
        trainer = golden_steps("cpu", "float32", make_graph)
        assert trainer.graphs.active == (request.param == "graph")
        yield trainer


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.flatten() - wanted.flatten()).abs().max() / wanted.abs().max()).item()


def test_adam_is_the_published_one():
    trainer = golden_steps()
    for name, wanted in adam_of_the_file().items():
        found = trainer.optimizers[name].adam.defaults
        assert found["lr"] == pytest.approx(wanted["lr"], rel=1e-12)
        assert list(found["betas"]) == pytest.approx(wanted["betas"], rel=1e-12)


def test_losses_are_the_published_ones(replay: GoldenTrainer):
    compared = 0
    for (phase, name), values in replay.losses.items():
        wanted = replay.golden.get(f"out.{phase}.{LOSSES.get(name)}")
        if wanted is not None:
            assert relative(values, wanted) <= 5e-6, (phase, name)
            compared += 1
    assert compared == 6
    assert relative(replay.path_length.mean, replay.golden["out.it0.Greg.pl_mean"]) <= 1e-6


@pytest.mark.parametrize("phase", PHASES)
def test_gradients_are_the_published_ones(replay: GoldenTrainer, phase: str):
    prefix = f"out.it0.{phase}.grad."
    wanted = {key[len(prefix) :]: value for key, value in replay.golden.items() if key.startswith(prefix)}
    found = replay.gradients[f"it0.{phase}"]
    assert found.keys() == wanted.keys()
    worst = max((relative(found[key], value), key) for key, value in wanted.items())
    print(phase, worst)
    assert worst[0] <= 2e-5


@pytest.mark.parametrize(("name", "bound"), [("G", 3e-5), ("Gema", 3e-5), ("D", 2e-6)])
def test_weights_afterwards_are_the_published_ones(replay: GoldenTrainer, name: str, bound: float):
    state = {"G": replay.G, "D": replay.D, "Gema": replay.G_ema}[name].state_dict()
    if name == "Gema":
        state.pop("mapping.w_avg")  # the file holds parameters only
    state.pop("synthesis.b4.input.freqs", None)
    for key, value in state.items():
        assert (value - replay.golden[f"out.final.{name}.{key}"]).abs().max() <= bound, key


def test_half_precision_stays_within_its_distance():
    """Of losses and gradients; random weights are a hard case, and the second derivative of R1 the hardest."""
    errors = golden_steps("cpu", "bfloat16").errors()
    print(errors)
    assert all(error <= limit for error, limit in zip(errors, LIMITS["bfloat16"], strict=True))


def make_trainer(**recipe) -> Trainer:
    generator = make_generator(img_resolution=16)
    torch.manual_seed(3)
    discriminator = Discriminator(DiscriminatorConfig(16, channel_base=128, channel_max=8))
    return Trainer(generator, discriminator, Recipe(**{"batch": 4, "augment": "none", "r1_gamma": 0.1, **recipe}))


def reals(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_regularisation_is_lazy(monkeypatch):
    trainer, taken = make_trainer(r1_interval=3, pl_interval=2), []
    monkeypatch.setattr(trainer, "take_phase", lambda phase, _: taken.append((trainer.steps, phase.name)) or {})
    for _ in range(7):
        trainer.step(reals())
    assert [step for step, phase in taken if phase == "Greg"] == [0, 2, 4, 6]
    assert [step for step, phase in taken if phase == "Dreg"] == [0, 3, 6]
    assert [step for step, phase in taken if phase == "Gmain"] == list(range(7))


def test_the_average_follows_with_its_half_life():
    """After as many pictures as the half-life, half of the way is left."""
    trainer = make_trainer(ema_images=16, ema_rampup=0.0)
    for average, current in zip(trainer.G_ema.parameters(), trainer.G.parameters(), strict=True):
        average.zero_()
        current.fill_(1)
    for _ in range(4):
        trainer._update_averages()
    assert all(torch.allclose(p, torch.tensor(0.5)) for p in trainer.G_ema.parameters())
    assert Recipe(ema_images=5000).half_life(1000) == 50
    assert Recipe(batch=32).half_life(10**9) == 10_000
    assert Recipe(batch=32, ema_rampup=0.0).half_life(0) == 10_000


def test_the_published_average_leaves_its_start_within_a_thousand_pictures():
    recipe = Recipe(batch=16, **average_for(16))
    assert recipe.half_life(0) == recipe.half_life(1600) == 160
    assert recipe.half_life(20_000) == 2000
    assert recipe.half_life(10**9) == 5000
    kept = [
        math.prod(0.5 ** (16 / recipe.half_life(shown)) for shown in range(0, end, 16)) for end in (1088, 2000, 4000)
    ]
    assert kept[0] < 0.01
    # Later it is the average of a power: what had been learnt by half of the training keeps 1 %.
    assert kept[2] / kept[1] == pytest.approx(0.5 ** (math.log(2) / 0.1), rel=0.05)


def test_a_step_that_is_not_finite_is_skipped_and_many_end_the_run():
    trainer = make_trainer(r1_interval=1)
    trainer.step(reals())
    before = {key: value.clone() for key, value in trainer.D.state_dict().items()}
    poisoned = reals()
    poisoned[0, 0, 0, 0] = float("nan")
    trainer.step(poisoned)
    assert trainer.skipped == 2  # Dmain and Dreg
    assert all(torch.equal(before[key], value) for key, value in trainer.D.state_dict().items())
    assert all(value.isfinite().all() for value in trainer.G_ema.state_dict().values())
    for parameter in trainer.G.parameters():
        parameter.data.fill_(float("nan"))

    def train_on() -> None:
        for _ in range(NON_FINITE_LIMIT):
            trainer.step(poisoned)

    with pytest.raises(TrainingError, match="lower the learning rates"):
        train_on()
    assert trainer.G.mapping.w_avg.isfinite().all()
    assert trainer.path_length.mean.isfinite()


def test_the_authors_clean_up():
    gradient = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    clean_gradients([gradient])
    assert gradient.tolist() == [1, 0, 1e5, -1e5]


@pytest.mark.parametrize(
    ("batch", "micro_batch", "group_size"), [(8, 4, 4), (8, 4, 2), (4, 2, 1), (12, 4, 4), (16, 8, 4)]
)
@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(batch: int, micro_batch: int, group_size: int, loss: str):
    """Where the size of the minibatch standard deviation's groups divides that of a part: everything in a step.

    In float64, since random networks have kinks and cancel.
    """
    found = []
    for size in (0, micro_batch):
        trainer = make_trainer(batch=batch, micro_batch=size, loss=loss)
        trainer.D.b4.group_size = group_size
        for network in (trainer.G, trainer.D, trainer.G_ema):
            network.double()
        trainer.path_length.mean = torch.tensor(0.3, dtype=torch.float64)
        gradients: dict[str, torch.Tensor] = {}

        for optimizer in trainer.optimizers.values():

            def keep(found, optimizer=optimizer, gradients=gradients) -> None:
                named = zip(optimizer.parameters, found, strict=True)
                count = len(gradients)
                gradients |= {f"{count} {key}": g for key, g in named if g is not None}

            optimizer.step = keep  # type: ignore[method-assign]
        stats = trainer.step(reals(batch).double())
        state = {"pl_mean": trainer.path_length.mean, "w_avg": trainer.G.mapping.w_avg, "signs": trainer.ada.signs}
        found.append(gradients | state | stats)
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        assert (found[1][key] - value).abs().max() <= 1e-6 * value.abs().max() + 1e-12, key


def test_frozen_layers_stay():
    trainer = make_trainer(freeze_d=3)
    before = {key: value.clone() for key, value in trainer.D.state_dict().items()}
    trainer.step(reals())
    changed = {
        key.rsplit(".", 1)[0] for key, value in trainer.D.state_dict().items() if not torch.equal(value, before[key])
    }
    assert not changed & {"b16.fromrgb", "b16.conv0", "b16.conv1"}
    assert {"b16.skip", "b8.conv0", "b4.fc"} <= changed


def test_labels_reach_both_networks():
    generator = make_generator(img_resolution=16, c_dim=3)
    discriminator = Discriminator(DiscriminatorConfig(16, c_dim=3, channel_base=128, channel_max=8))
    trainer = Trainer(generator, discriminator, Recipe(batch=4, augment="none", r1_gamma=0.1))
    trainer.inputs.labels = torch.eye(3)
    trainer.step(reals(), torch.eye(3)[[0, 1, 2, 0]])
    for network, name in (("G", "mapping.embed.weight"), ("D", "mapping.embed.weight")):
        optimizer = trainer.optimizers[network]
        assert optimizer.adam.state[optimizer.parameters[name]]["exp_avg"].abs().max() > 0


def test_half_precision_and_augmentation_run():
    trainer = make_trainer(precision="bfloat16", augment="fixed", augment_p=0.8)
    for _ in range(2):
        stats = trainer.step(reals())
    assert trainer.skipped == 0
    assert all(value.isfinite() for value in stats.values())
    assert stats["augment/p"] == pytest.approx(0.8)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "fp32_precision"), reason="needs torch 2.9")
@pytest.mark.parametrize("backend", [torch.backends, torch.backends.cudnn], ids=["all", "cudnn"])
def test_a_process_that_allows_tf32_by_the_new_switches_trains(backend, monkeypatch):
    """Reading the older switches raises RuntimeError then; on a CPU neither generation is touched."""
    plain = make_trainer()
    wanted = plain.step(reals())
    monkeypatch.setattr(backend, "fp32_precision", "tf32")
    with pytest.raises(RuntimeError):
        _ = torch.backends.cuda.matmul.allow_tf32
    trainer = make_trainer()
    found = trainer.step(reals())
    assert backend.fp32_precision == "tf32"
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    for name, value in plain.G.state_dict().items():
        assert torch.equal(trainer.G.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0}, "batch"),
        ({"augment": "some"}, "augment"),
        ({"patches": 1.5}, "patches"),
        ({"g_lr": float("inf")}, "g_lr"),
        ({"batch": 2.5}, "batch"),
        ({"non_finite": "ignore"}, "non_finite"),
    ],
)
def test_bad_recipes_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_recipes_are_stored_as_plain_values():
    recipe = Recipe(batch=8, patches=0.5)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    with pytest.raises(ValueError, match="depth"):
        Recipe.from_dict({"depth": 3})
    assert [r1_gamma_for(side) for side in (128, 256, 512, 1024)] == [0.5, 2, 8, 32]


def test_networks_must_fit():
    generator = make_generator(img_resolution=16)
    grey = Discriminator(DiscriminatorConfig(16, img_channels=1, channel_base=128, channel_max=8))
    with pytest.raises(TrainingError, match="img_channels"):
        Trainer(generator, grey, Recipe(batch=4))
    with pytest.raises(TrainingError, match="micro_batch"):
        make_trainer(micro_batch=3)


def test_pictures_that_are_never_finite_end_the_run():
    """Though the generator's steps are, in between."""
    trainer = make_trainer(r1_interval=0, pl_interval=0, augment="ada")
    poisoned = torch.full((4, 3, 16, 16), float("nan"))
    for _ in range(NON_FINITE_LIMIT - 1):
        trainer.step(poisoned)
    with pytest.raises(TrainingError, match=f"of D were not finite {NON_FINITE_LIMIT} times"):
        trainer.step(poisoned)
    assert trainer.augment.p.isfinite()


def test_the_relativistic_loss_and_its_penalties():
    """As written down in the paper (equations 2 and 10), of the networks as they are."""
    trainer = make_trainer(loss="relativistic", pl_weight=0.0, r1_gamma=0.3, r1_interval=1)
    rows = trainer.inputs.of_step(0, list(trainer.phases.values()), reals())
    generator, judge = copy.deepcopy(trainer.G), copy.deepcopy(trainer.D)
    stats = trainer.step(reals())

    def drawn(phase: str) -> torch.Tensor:
        with torch.no_grad():
            return generator(rows[phase]["z"])

    with torch.no_grad():
        margin = judge(drawn("Gmain")) - judge(reals())
    assert stats["loss/G"].item() == pytest.approx(torch.nn.functional.softplus(-margin).mean().item(), rel=1e-4)
    for name, images in (("r1_penalty", reals()), ("r2_penalty", None)):
        # The generator has moved before the discriminator's phases, which is why its pictures are near, not equal.
        images = (drawn("Dreg") if images is None else images).requires_grad_()
        (gradient,) = torch.autograd.grad(judge(images).sum(), images)
        assert stats[name].item() == pytest.approx(gradient.square().sum((1, 2, 3)).mean().item(), rel=0.2), name
    assert "r2_penalty" not in make_trainer(pl_weight=0.0).step(reals())
    with pytest.raises(ValueError, match="relativistic"):
        Recipe(loss="hinge")


@pytest.mark.parametrize("make_graph", [False, FakeGraph])
def test_the_relativistic_loss_trains(make_graph):
    """With all that belongs to a step: alterations of real and generated pictures, path lengths, graphs."""
    generator = make_generator(img_resolution=16)
    torch.manual_seed(3)
    discriminator = Discriminator(DiscriminatorConfig(16, channel_base=128, channel_max=8))
    recipe = Recipe(
        batch=4, loss="relativistic", augment="fixed", augment_p=0.1, r1_gamma=0.02, r1_interval=2, pl_interval=4
    )
    trainer = Trainer(generator, discriminator, recipe, make_graph=make_graph)
    for _ in range(7):
        stats = trainer.step(torch.full((4, 3, 16, 16), 0.8))
    assert all(value.isfinite() for value in stats.values())
    assert trainer.skipped == 0
    assert trainer.graphs.active == bool(make_graph)
