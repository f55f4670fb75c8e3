"""Every file format in, safetensors out; what is wrong with a file is said by `CheckpointError`.

Our format is one safetensors file: the parameters under their official names, and in the header under the key
`creps` a JSON object `{"version", "config", "sha256", ...}`. The digest covers config and weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, NewerFormatError
from ..files import replace_file
from ..network import Generator, GeneratorConfig
from .official import Network, Snapshot, read_snapshot
from .taught import is_taught, read_taught, write_taught

if TYPE_CHECKING:
    from ..network import Discriminator

FORMAT_VERSION = 1
HEADER_KEY = "creps"
WEIGHTS = ("G_ema", "G")
_KEEP_FLOAT32 = ("freqs", "w_avg")  # a rounded frequency moves details, and both are small
_HEADER_LIMIT = 1 << 20

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class CheckpointInfo:
    """What a file holds, without its weights."""

    format: str
    config: GeneratorConfig
    parameters: int
    networks: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def load_generator(path: Path_, weights: str = "G_ema") -> Generator:
    """Load a generator from an official snapshot (.pkl) or from our own format (.safetensors).

    The kind of file is told by its content. Nothing in it is executed.

    Args:
        path: the file.
        weights: of an official snapshot: `G_ema` (the moving average, the better pictures) or `G`.

    Returns:
        The generator on the CPU in float32, in evaluation mode, without gradients.

    Raises:
        CheckpointError: the file cannot be used; says why and what to do.
        ValueError: unknown `weights`.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {list(WEIGHTS)}, not {weights!r}")
    path = Path(path)
    config, tensors, header, beside = _read(path, weights)
    generator = build_generator(config, tensors, lambda problem: CheckpointError(f"{path}: {problem}"))
    try:
        read_taught(generator, header, beside)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; the file is damaged") from error
    generator.name, generator.origin = path.stem, str(path)
    return generator


def save_generator(
    generator: Generator,
    path: Path_,
    *,
    half: bool = False,
    details: Mapping[str, Any] | None = None,
    discriminator: Discriminator | None = None,
) -> None:
    """Write a generator in our own format, atomically.

    Args:
        generator: on any device.
        path: of the new file, by convention `*.safetensors`; an existing one is replaced.
        half: store float16: half the size, errors of about 1/1000 of a grey level range. Values beyond 65504
            are refused.
        details: anything JSON can hold, kept in the header (where the weights come from, for instance).
        discriminator: stored beside the generator, so that a fine-tuning can begin with both.

    Raises:
        ValueError: `half` cannot hold a weight.
    """
    tensors = {name: _for_storage(name, tensor, half) for name, tensor in generator.state_dict().items()}
    header: dict[str, Any] = {"version": FORMAT_VERSION, "config": generator.config.to_dict()}
    if discriminator is not None:
        tensors |= {f"D.{name}": _for_storage(name, t, half) for name, t in discriminator.state_dict().items()}
        header["discriminator"] = discriminator.config.to_dict()
    taught, labels = write_taught(generator)
    tensors |= labels
    header |= taught
    header |= {
        "sha256": digest(generator.config, tensors),
        "details": dict(details or {}),
    }
    replace_file(path, lambda partial: save_file(tensors, partial, metadata={HEADER_KEY: json.dumps(header)}))


def inspect_checkpoint(path: Path_) -> CheckpointInfo:
    """What a file holds. It is read and checked like by `load_generator`, which raises the same errors."""
    path = Path(path)
    generator = load_generator(path)
    parameters = sum(p.numel() for p in generator.parameters())
    if not _is_safetensors(path):
        snapshot = read_snapshot(path)
        details = {"training_set": snapshot.training_set}
        return CheckpointInfo("official snapshot", generator.config, parameters, list(snapshot.networks), details)
    with _open(path) as file:
        header = _header(path, file.metadata())
        dtypes = sorted({str(file.get_tensor(name).dtype).removeprefix("torch.") for name in file.keys()})  # noqa: SIM118
    details = {"stored as": ", ".join(dtypes), "sha256": header["sha256"], **header.get("details", {})}
    if generator.labels is not None:
        details["labels"] = str(generator.labels)
    if generator.aspect != (1, 1):
        details["aspect"] = ":".join(map(str, generator.aspect))
    kind = "creps training snapshot" if is_training(header) else "creps safetensors"
    networks = [*(["G"] if is_training(header) else []), *(["D"] if "discriminator" in header else []), "G_ema"]
    return CheckpointInfo(f"{kind}, version {header['version']}", generator.config, parameters, networks, details)


def build_generator(
    config: GeneratorConfig, tensors: Mapping[str, Tensor], error: Callable[[str], Exception] = ValueError
) -> Generator:
    """A generator of this config with these weights (official names; dead ones are dropped).

    Names and shapes are compared before memory is taken. `error` makes the exception of a message.
    """
    # The random weights are replaced: the caller's random stream stays as it was.
    with torch.random.fork_rng([]), torch.device("meta"):
        generator = Generator(config)
    wanted = generator.state_dict()
    tensors = {name: tensor for name, tensor in tensors.items() if not _is_dead(name, config)}
    problems = _differences(
        {k: tuple(v.shape) for k, v in wanted.items()}, {k: tuple(v.shape) for k, v in tensors.items()}
    )
    if problems:
        raise error(f"the weights do not belong to a CREPS generator of its config. {problems}{_resembles(tensors)}")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise error(f"{name} holds values that are not finite: the file is damaged, or its training had diverged")
    generator.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return generator.eval().requires_grad_(False)


def digest(config: GeneratorConfig, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a config and its tensors as stored (names, dtypes, shapes, bytes), in hexadecimal."""
    sha = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def fingerprint(generator: Generator) -> str:
    """What tells generators apart: `digest` of config and weights in float32, wherever they lie.

    It is computed once per object (0.2 s for 120 MB) and then remembered, so it does not follow later changes of the
    weights: a generator in training has none worth keeping.
    """
    if not generator.fingerprint:
        tensors = {name: tensor.float() for name, tensor in generator.state_dict().items()}
        generator.fingerprint = digest(generator.config, tensors)
    return generator.fingerprint


def official_config(network: Network) -> GeneratorConfig:
    """The config of an official generator, from its constructor's arguments.

    Raises:
        ValueError: an argument is missing, or makes a network that cannot be rendered.
    """
    args = dict(network.init_kwargs)
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base", "channel_max")
    if missing := [name for name in names if name not in args]:
        raise ValueError(f"its constructor's arguments lack {', '.join(missing)}")
    optional = {"biline_channels": args["biline_channels"]} if "biline_channels" in args else {}
    mapping_layers = (args.get("mapping_kwargs") or {}).get("num_layers", 8)
    return GeneratorConfig(**{name: args[name] for name in names}, mapping_layers=mapping_layers, **optional)


def read_own(path: Path_) -> tuple[GeneratorConfig, dict[str, Any], dict[str, Tensor]]:
    """Config of the generator, header and tensors of a file of ours, checked against its checksum.

    Names in a snapshot of the trainer begin with the network, `G.`, `D.`, `G_ema.`; in the file of a generator, those
    of the discriminator, if there is one, do.

    Raises:
        CheckpointError: the file is damaged, or is not ours.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    with _open(path) as file:
        header = _header(path, file.metadata())
        try:
            config = GeneratorConfig.from_dict(header["config"])
        except ValueError as error:
            raise CheckpointError(f"{path}: the generator in it cannot be built: {error}") from error
        # Copies: the file may be overwritten while the generator lives.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if digest(config, tensors) != header["sha256"]:
        raise CheckpointError(
            f"{path}: the weights do not match their checksum: the file is damaged, download or copy it again"
        )
    return config, header, tensors


def is_training(header: Mapping[str, Any]) -> bool:
    """Whether a header is that of a snapshot of the trainer."""
    return header.get("kind") == "training"


def network_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one network, `G`, `D` or `G_ema`, under their own names."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _read(path: Path, weights: str) -> tuple[GeneratorConfig, dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """Config, the weights of one generator, the header and the tensors beside the networks."""
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if not _is_safetensors(path):
        return *_from_snapshot(path, read_snapshot(path), weights), {}, {}
    config, header, tensors = read_own(path)
    beside = {name: tensor for name, tensor in tensors.items() if is_taught(name)}
    if is_training(header):
        return config, network_of(tensors, weights), header, beside
    own = {name: t for name, t in tensors.items() if not name.startswith("D.") and name not in beside}
    return config, own, header, beside


def _is_safetensors(path: Path) -> bool:
    """Whether a JSON object begins behind the eight bytes of its length."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _from_snapshot(path: Path, snapshot: Snapshot, weights: str) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    if weights not in snapshot.networks:
        raise CheckpointError(f"{path}: holds {', '.join(snapshot.networks) or 'no networks'}, but not {weights}")
    network = snapshot.networks[weights]
    if "synthesis.b4.input.freqs" not in network.tensors:
        raise CheckpointError(
            f"{path}: its {weights} is not a CREPS generator.{_resembles(network.tensors)} "
            "Use a snapshot of the CREPS authors (creps-*.pkl) or a file of `creps train` or `creps convert`"
        )
    try:
        return official_config(network), network.tensors
    except ValueError as error:
        raise CheckpointError(f"{path}: the generator in it cannot be built: {error}") from error


def _open(path: Path):
    try:
        return safetensors.safe_open(path, "pt")
    except Exception as error:  # the library's own errors differ between versions
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); download or copy it again") from error


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    text = (metadata or {}).get(HEADER_KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: a safetensors file without a CREPS config in its header: weights of another model, or a bare "
            "state dict. Convert the official .pkl with `creps convert`"
        )
    try:
        if len(text) > _HEADER_LIMIT:
            raise ValueError(f"it is {len(text)} characters long")
        header = json.loads(text)
        if not isinstance(header, dict) or not isinstance(header.get("config"), dict):
            raise ValueError("there is no config in it")
        version = header.get("version")
        if not isinstance(version, int) or not isinstance(header.get("sha256"), str):
            raise ValueError("it has no version or no checksum")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its CREPS header cannot be read ({error}); the file is damaged") from error
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path}: written in version {version} of the format, this program knows {FORMAT_VERSION}: update it"
        )
    return header


def _for_storage(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not half or name.endswith(_KEEP_FLOAT32):
        return tensor
    if tensor.abs().max() > torch.finfo(torch.float16).max:
        raise ValueError(f"{name} has values beyond 65504, which float16 cannot hold: store it in float32")
    return tensor.half()


def _is_dead(name: str, config: GeneratorConfig) -> bool:
    """Parts of an official state dict that no picture depends on."""
    dead = ["synthesis.b4.input.coords", "synthesis.decoder_8."]
    if config.img_resolution > 4:
        dead.append("synthesis.b4.tores.")
    return name.startswith(tuple(dead))


def _differences(wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str:
    parts = []
    for title, names in (
        ("Missing", wanted.keys() - found.keys()),
        ("Not expected", found.keys() - wanted.keys()),
    ):
        if names:
            parts.append(f"{title}: {_some(sorted(names))}.")
    wrong = [
        f"{k} {found[k]} instead of {wanted[k]}" for k in sorted(wanted.keys() & found.keys()) if found[k] != wanted[k]
    ]
    if wrong:
        parts.append(f"Wrong shape: {_some(wrong)}.")
    return " ".join(parts)


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


def _resembles(tensors: Mapping[str, Tensor]) -> str:
    """A guess at what a foreign state dict is."""
    for key, model in (
        ("synthesis.input.freqs", "StyleGAN3"),
        ("synthesis.b4.const", "StyleGAN2"),
        ("b4.out.weight", "a StyleGAN2 discriminator"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a diffusion model"),
    ):
        if key in tensors:
            return f" It looks like {model}."
    return ""
