"""Check the hyperparameters of an official network that no shape shows: gains, activations, clamps, arguments.

An official layer stores them as attributes beside its weights. Ours are constants: a file with other values would load,
and give other images than its authors saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...common.errors import printable, quoted

Settings = Mapping[str, Mapping[str, Any]]
"""Attributes of the layers of a network by the name of the layer, and those values that are plain data."""

CHECKED = ("weight_gain", "bias_gain", "act_gain", "activation", "fc_clamp", "conv_clamp")
"""Attributes that `check_settings` compares."""
_CLAMP, _MAPPING_RATE = 256, 0.01
_LINEAR = ("affine", "embed", "out", "skip", "decoder_img", "proj")  # last parts of names of layers
_ANY = object()  # a value that changes no image
# Argument -> values that are built; others are refused
_COMMON: dict[str, Any] = {
    **dict.fromkeys(("c_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "num_fp16_res"), _ANY),
    **dict.fromkeys(("conv_clamp", "fc_clamp"), (_CLAMP,)),
    "mapping_kwargs": {
        **dict.fromkeys(("num_layers", "w_avg_beta"), _ANY),
        "lr_multiplier": (_MAPPING_RATE,),
        "activation": ("lrelu",),
        "embed_features": (None,),
        "layer_features": (None,),
    },
}
_GENERATOR = _COMMON | {
    **dict.fromkeys(("z_dim", "w_dim", "biline_channels", "bandwidth"), _ANY),  # the file holds the frequencies
    "synthesis_kwargs": {
        **dict.fromkeys(("channel_base", "channel_max", "num_fp16_res", "biline_channels"), _ANY),
        **dict.fromkeys(("conv_clamp", "fc_clamp"), (_CLAMP,)),
    },
}
_DISCRIMINATOR = _COMMON | {
    "architecture": ("resnet",),
    "cmap_dim": (None,),
    "block_kwargs": dict.fromkeys(("freeze_layers", "use_fp16", "fp16_channels_last"), _ANY)
    | {"activation": ("lrelu",), "resample_filter": ([1, 3, 3, 1],)},
    "epilogue_kwargs": {"mbstd_group_size": _ANY, "mbstd_num_channels": (1,), "activation": ("lrelu",)},
}


def check_generator_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError, naming it, if a constructor's argument of an official generator is unknown or not built."""
    _check_arguments(arguments, _GENERATOR)


def check_discriminator_arguments(arguments: Mapping[str, Any]) -> None:
    """The same for a discriminator."""
    _check_arguments(arguments, _DISCRIMINATOR)


def check_settings(settings: Settings, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError if a layer stores another hyperparameter than is built; names layer, value and what is built.

    Args:
        settings: attributes of the layers; one that is not stored is not checked.
        tensors: of the network, whose weights give the number of inputs of each layer.
    """
    for layer, stored in settings.items():
        for name, wanted in _built(layer, tensors.get(f"{layer}.weight")).items():
            if name in stored and not _equal(stored[name], wanted):
                allowed = wanted if isinstance(wanted, str) else " or ".join(f"{value:g}" for value in wanted)
                raise ValueError(
                    f"{printable(layer, 60)} has {name} {quoted(stored[name])}, and this program builds {allowed}"
                )


def _built(layer: str, weight: torch.Tensor | None) -> dict[str, Any]:
    """The hyperparameters of a layer: a text, or the numbers that are allowed."""
    last = layer.rpartition(".")[2]
    linear = last in _LINEAR
    rate = _MAPPING_RATE if layer.startswith("mapping.fc") else 1
    built: dict[str, Any] = {"activation": "linear" if linear else "lrelu"}
    built["act_gain"] = (1.0,) if linear else (math.sqrt(2),)
    built["bias_gain"] = (rate,)
    if not linear:
        built |= {"fc_clamp": (_CLAMP,), "conv_clamp": (_CLAMP,)}
    if weight is not None and weight.ndim > 1 and weight[0].numel():
        built["weight_gain"] = (rate / math.sqrt(weight[0].numel()),)
    return built


def _equal(found: Any, wanted: str | Sequence[float]) -> bool:
    if isinstance(wanted, str):
        return found == wanted
    if type(found) not in (int, float) or not abs(found) < 1e30:
        return False
    return any(math.isclose(found, value, rel_tol=1e-5) for value in wanted)


def _check_arguments(arguments: Mapping[str, Any], known: Mapping[str, Any], where: str = "") -> None:
    for name, value in arguments.items():
        title = printable(where + name, 60)
        if name not in known:
            raise ValueError(f"its constructor has the argument {title} = {quoted(value)}, which is unknown here")
        allowed = known[name]
        if isinstance(allowed, dict):
            if isinstance(value, dict):
                _check_arguments(value, allowed, f"{name}.")
        elif allowed is not _ANY and not any(_same(value, good) for good in allowed):
            values = " or ".join(map(str, allowed))
            raise ValueError(f"its constructor has {title} = {quoted(value)}, and this program builds {values}")


def _same(value: Any, good: Any) -> bool:
    if isinstance(good, list):
        return isinstance(value, list | tuple) and list(value) == good
    return type(value) is not bool and value == good
