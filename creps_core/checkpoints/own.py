"""Load checkpoints of every format and save them as safetensors. Invalid files raise `CheckpointError`.

Our format is a safetensors file (`container.py`) with the parameters under their official names; its header has under
the key `creps` a JSON object `{"version", "config", "sha256", ...}`. The digest covers the config and all tensors.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...common.errors import AGAIN, CHECK_FILE, CHECK_NAME, CheckpointError, NewerFormatError
from ...common.files import Path_, check_target, open_file
from ..network import DiscriminatorConfig, Generator, GeneratorConfig
from .build import build_discriminator, build_generator, check_finite, check_shapes, resembles, shapes_of
from .container import TensorFile, as_bytes, open_tensors, read_header, write_tensors
from .hyperparameters import check_discriminator_arguments, check_generator_arguments, check_settings
from .official import CHOOSE, Network, read_snapshot
from .training_metadata import is_training_metadata, read_training_metadata, write_training_metadata

if TYPE_CHECKING:
    from ..network import Discriminator

FORMAT_VERSION = 1
HEADER_KEY = "creps"
WEIGHTS = ("G_ema", "G")
_KEEP_FLOAT32 = ("freqs", "w_avg")  # a rounded frequency moves details, and both are small
_HEADER_LIMIT = 1 << 20
_AVERAGE = re.compile(r"average\d{1,3}\.(.+)")  # power-function EMAs in a training snapshot
_OLD_FIELDS = ("version", "config", "sha256", "details", "discriminator")  # of files without a seal
_OLD_FIELDS += ("kind", "recipe", "counters")


@dataclass(frozen=True)
class CheckpointInfo:
    """Description of a checkpoint file, without its weights."""

    format: str
    config: GeneratorConfig
    parameters: int
    networks: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of any format, read and checked; its networks are built on demand."""

    path: Path
    format: str  # as printed by `creps info`
    config: GeneratorConfig
    tensors: dict[str, dict[str, Tensor]]  # by network; those present of G, D, G_ema
    header: dict[str, Any] = field(default_factory=dict)  # empty for an official snapshot
    metadata_tensors: dict[str, Tensor] = field(default_factory=dict)  # see `training_metadata.py`
    discriminator_config: DiscriminatorConfig | str | None = None  # None: there is none; str: why it is unusable
    details: dict[str, Any] = field(default_factory=dict)
    named: bool = True
    """Whether G and G_ema are separate networks; the only generator of a plain file serves as both."""

    def refuse(self, found: str, advice: str = AGAIN) -> CheckpointError:
        """The error to raise for a problem with this file."""
        return CheckpointError.about(self.path, found, advice)

    def generator(self, weights: str = "G_ema") -> Generator:
        """One of its generators: on the CPU, float32, eval mode, no gradients.

        Raises:
            CheckpointError: the file lacks it, or its tensors do not fit its config.
        """
        name = weights if self.named else "G_ema"
        if name not in self.tensors:
            raise self.refuse(
                f"holds {', '.join(self.tensors) or 'no networks'}, but not {name}", "Choose other weights"
            )
        generator = build_generator(self.config, self.tensors[name], self.refuse)
        try:
            read_training_metadata(generator, self.header, self.metadata_tensors)
        except ValueError as error:
            raise self.refuse(str(error)) from error
        generator.name, generator.origin = self.path.stem, str(self.path)
        return generator

    def discriminator(self) -> Discriminator | None:
        """Its discriminator, likewise; None if the file has none."""
        if self.discriminator_config is None:
            return None
        if isinstance(self.discriminator_config, str):
            raise self.refuse(f"the discriminator in it cannot be built: {self.discriminator_config}")
        return build_discriminator(self.discriminator_config, self.tensors["D"], self.refuse)


def load_generator(path: Path_, weights: str = "G_ema") -> Generator:
    """Load a generator from an official snapshot (.pkl) or from our own format (.safetensors).

    The format is detected from the content. Nothing in the file is executed.

    Args:
        path: the file.
        weights: of an official snapshot: `G_ema` (the moving average, with better images) or `G`.

    Returns:
        The generator: on the CPU, float32, eval mode, no gradients.

    Raises:
        CheckpointError: the file cannot be used; says why and what to do.
        ValueError: unknown `weights`.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {list(WEIGHTS)}, not {weights!r}")
    return read_checkpoint(path).generator(weights)


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
        path: the file to write, by convention `*.safetensors`; an existing one is replaced.
        half: store float16: half the size, errors of about 1/1000 of the range of values. Weights beyond 65504
            raise an error.
        details: JSON values for the header, such as where the weights come from.
        discriminator: saved with the generator, so that fine-tuning can start from both.

    Raises:
        ValueError: `half` cannot hold a weight.
        OSError: the file cannot be written; one sentence that says why.
    """
    check_target(path)
    tensors = {name: _for_storage(name, tensor, half) for name, tensor in generator.state_dict().items()}
    header: dict[str, Any] = {"version": FORMAT_VERSION, "config": generator.config.to_dict()}
    if discriminator is not None:
        tensors |= {f"D.{name}": _for_storage(name, t, half) for name, t in discriminator.state_dict().items()}
        header["discriminator"] = discriminator.config.to_dict()
    fields, metadata_tensors = write_training_metadata(generator)
    tensors |= metadata_tensors
    header |= fields
    header |= {
        "sha256": digest(generator.config, tensors),
        "details": dict(details or {}),
    }
    write_tensors(path, tensors, HEADER_KEY, header)


def inspect_checkpoint(path: Path_) -> CheckpointInfo:
    """Describe a file. It is read and checked as by `load_generator`, with the same errors."""
    checkpoint = read_checkpoint(path)
    generator = checkpoint.generator()
    parameters = sum(p.numel() for p in generator.parameters())
    details = dict(checkpoint.details)
    if generator.labels is not None:
        details["labels"] = str(generator.labels)
    if generator.aspect != (1, 1):
        details["aspect"] = ":".join(map(str, generator.aspect))
    networks = list(checkpoint.tensors)
    return CheckpointInfo(checkpoint.format, checkpoint.config, parameters, networks, details)


def read_checkpoint(path: Path_) -> Checkpoint:
    """Read a checkpoint of any format, detected from its content; nothing in it is executed.

    Raises:
        CheckpointError: the file cannot be used; says why and what to do.
    """
    path = Path(path)
    if not _is_safetensors(path):
        return _read_official(path)
    config, header, tensors = read_own(path)
    training = is_training(header)
    names = [name for name in ("G", "D", "G_ema") if training or (name == "D" and "discriminator" in header)]
    networks = {name: network_of(tensors, name) for name in names}
    metadata_tensors = {name: tensor for name, tensor in tensors.items() if is_training_metadata(name)}
    if not training:
        networks["G_ema"] = {
            name: tensor
            for name, tensor in tensors.items()
            if not name.startswith("D.") and name not in metadata_tensors
        }
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    return Checkpoint(
        path,
        f"{'creps training snapshot' if training else 'creps safetensors'}, version {header['version']}",
        config,
        networks,
        header,
        metadata_tensors,
        DiscriminatorConfig.from_dict(header["discriminator"]) if "discriminator" in header else None,
        {"stored as": ", ".join(dtypes), "sha256": header["sha256"], **header.get("details", {})},
        named=training,
    )


def digest(config: GeneratorConfig | None, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a config (optional) and of tensors as stored (names, dtypes, shapes, bytes), in hexadecimal."""
    sha = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode() if config else b"")
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(as_bytes(tensor))
    return sha.hexdigest()


def fingerprint(generator: Generator) -> str:
    """Identify a generator: `digest` of its config and its weights in float32, on any device.

    The value is computed once per object (0.2 s for 120 MB) and cached: later changes of the weights, as in training,
    do not change it.
    """
    if not generator.fingerprint:
        tensors = {name: tensor.float() for name, tensor in generator.state_dict().items()}
        generator.fingerprint = digest(generator.config, tensors)
    return generator.fingerprint


def official_config(network: Network) -> GeneratorConfig:
    """The config of an official generator, from its constructor's arguments.

    Raises:
        ValueError: an argument is missing, or describes a network that cannot be rendered.
    """
    args = dict(network.init_kwargs)
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base", "channel_max")
    if missing := [name for name in names if name not in args]:
        raise ValueError(f"its constructor's arguments lack {', '.join(missing)}")
    check_generator_arguments(args)
    check_settings(network.settings, network.tensors)
    optional = {"biline_channels": args["biline_channels"]} if "biline_channels" in args else {}
    mapping_layers = _inner(args, "mapping_kwargs").get("num_layers", 8)
    return GeneratorConfig(**{name: args[name] for name in names}, mapping_layers=mapping_layers, **optional)


def read_own(path: Path_) -> tuple[GeneratorConfig, dict[str, Any], dict[str, Tensor]]:
    """Read a file in our format: generator config, header, tensors. Checks shapes, checksums and finite values.

    In a training snapshot, tensor names start with the network: `G.`, `D.`, `G_ema.`. In a generator's file, only those
    of the discriminator do.

    Raises:
        CheckpointError: the file is damaged, or is not in our format.
    """
    file = open_tensors(path, CheckpointError, NewerFormatError)
    with file.file:
        if HEADER_KEY not in file.metadata:
            raise file.refuse(
                "a safetensors file without a CREPS config in its header: weights of another model, or a state dict",
                "Choose a CREPS checkpoint, or convert the official .pkl with `creps convert`",
            )
        header = read_header(file, HEADER_KEY, _HEADER_LIMIT, FORMAT_VERSION, _OLD_FIELDS, _check_fields)
        config = GeneratorConfig.from_dict(header["config"])
        file.require_dtypes()
        _check_networks(file, config, header)
        tensors = file.read()
    if digest(config, tensors) != header["sha256"]:
        raise file.refuse("the weights do not match their checksum")
    for name, tensor in tensors.items():
        check_finite(name, tensor, file.refuse)
    return config, header, tensors


def is_training(header: Mapping[str, Any]) -> bool:
    """Whether a header belongs to a training snapshot."""
    return header.get("kind") == "training"


def network_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one network, `G`, `D` or `G_ema`, without the prefix in their names."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _check_fields(header: dict[str, Any]) -> None:
    """Raise ValueError unless the fields of a header are valid."""
    if not isinstance(header.get("config"), dict):
        raise ValueError("there is no config in it")
    if not isinstance(header.get("sha256"), str):
        raise ValueError("it has no version or no checksum")
    for name in ("details", "discriminator", "recipe", "counters"):
        if not isinstance(header.get(name, {}), dict):
            raise ValueError(f"its {name} are not an object")
    try:
        GeneratorConfig.from_dict(header["config"])
    except ValueError as error:
        raise ValueError(f"the generator in it cannot be built: {error}") from error
    try:
        if "discriminator" in header:
            DiscriminatorConfig.from_dict(header["discriminator"])
    except ValueError as error:
        raise ValueError(f"the discriminator in it cannot be built: {error}") from error


def _check_networks(file: TensorFile, config: GeneratorConfig, header: dict[str, Any]) -> None:
    """Raise unless the names and shapes in a file fit its configs. The tensors are not read yet."""
    found = {name: entry.shape for name, entry in file.entries.items() if not is_training_metadata(name)}
    generator = shapes_of(config)
    wanted: dict[str, dict[str, tuple[int, ...]]] = {"": generator}
    if is_training(header):
        wanted = {"G.": generator, "G_ema.": generator}
        if "discriminator" not in header:
            raise file.refuse("the config of its discriminator is missing")
        for name in [name for name in found if name.startswith(("adam.", "state.", "average"))]:
            shape = found.pop(name)
            inner = _AVERAGE.fullmatch(name)
            if name.startswith("average") and (inner is None or generator.get(inner[1]) != shape):
                raise file.refuse(f"{name} is not the average of a generator of its config")
    if "discriminator" in header:
        wanted["D."] = shapes_of(DiscriminatorConfig.from_dict(header["discriminator"]))
    names = {prefix + name: shape for prefix, shapes in wanted.items() for name, shape in shapes.items()}
    check_shapes(names, found, "a CREPS generator", file.refuse)


def _is_safetensors(path: Path) -> bool:
    """Whether a JSON object starts after the eight bytes of its length.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with open_file(path) as file:
            return (file.read(9) or b"")[8:] == b"{"
    except FileNotFoundError:
        raise CheckpointError.about(path, "there is no such file", CHECK_NAME) from None
    except OSError as error:
        raise CheckpointError.about(path, f"cannot be read ({error.strerror})", CHECK_FILE) from error


def _read_official(path: Path) -> Checkpoint:
    snapshot = read_snapshot(path)
    networks = {name: network.tensors for name, network in snapshot.networks.items()}
    network = snapshot.networks["G_ema"]
    if "synthesis.b4.input.freqs" not in network.tensors:
        raise CheckpointError.about(
            path,
            f"its G_ema is not a CREPS generator.{resembles(network.tensors)}",
            "Use a snapshot of the CREPS authors (creps-*.pkl) or a file of `creps train` or `creps convert`",
        )
    try:
        config = official_config(network)
        if "G" in snapshot.networks:  # may be chosen instead
            check_settings(snapshot.networks["G"].settings, networks["G"])
    except ValueError as error:
        raise CheckpointError.about(path, f"the generator in it cannot be built: {error}", CHOOSE) from error
    discriminator: DiscriminatorConfig | str | None = None
    try:
        if "D" in snapshot.networks:
            discriminator = _official_discriminator(snapshot.networks["D"])
    except ValueError as error:  # the generator can still be used
        discriminator = str(error)
    details = {"training_set": snapshot.training_set}
    return Checkpoint(path, "official snapshot", config, networks, discriminator_config=discriminator, details=details)


def _official_discriminator(network: Network) -> DiscriminatorConfig:
    """The config of an official discriminator, from its constructor's arguments."""
    args = network.init_kwargs
    if "img_resolution" not in args:
        raise ValueError("its constructor's arguments lack img_resolution")
    check_discriminator_arguments(args)
    check_settings(network.settings, network.tensors)
    names = ("img_resolution", "img_channels", "c_dim", "channel_base", "channel_max")
    size = _inner(args, "epilogue_kwargs").get("mbstd_group_size") or 4
    return DiscriminatorConfig(**{name: args[name] for name in names if name in args}, mbstd_group_size=size)


def _inner(args: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Arguments inside arguments, {} when missing."""
    inner = args.get(name)
    if not isinstance(inner, dict | None):
        raise ValueError(f"its constructor's {name} are not a dictionary")
    return inner or {}


def _for_storage(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not half or name.endswith(_KEEP_FLOAT32):
        return tensor
    if tensor.abs().max() > torch.finfo(torch.float16).max:
        raise ValueError(f"{name} has values beyond 65504, which float16 cannot hold: store it in float32")
    return tensor.half()
