"""The types that travel along our wires."""

from __future__ import annotations

from dataclasses import dataclass, field

import comfy.model_patcher
from comfy_api.latest import io
from torch import Tensor

from ..creps_core import Generator
from ..creps_core.camera import View


@dataclass(frozen=True)
class Model:
    """A generator in the care of ComfyUI's memory management."""

    patcher: comfy.model_patcher.ModelPatcher

    @property
    def generator(self) -> Generator:
        return self.patcher.model


@dataclass(frozen=True)
class Latents:
    """A batch of styles ws [N, num_ws, w_dim] float32 on the CPU, and the seeds that they were sampled from."""

    ws: Tensor
    seeds: list[int] = field(default_factory=list)


@io.comfytype(io_type="CREPS_MODEL")
class ModelSocket(io.ComfyTypeIO):
    """A generator."""

    Type = Model


@io.comfytype(io_type="CREPS_LATENT")
class LatentSocket(io.ComfyTypeIO):
    """A batch of latents of one generator."""

    Type = Latents


@io.comfytype(io_type="CREPS_VIEW")
class ViewSocket(io.ComfyTypeIO):
    """Where the camera looks."""

    Type = View


@io.comfytype(io_type="CREPS_PATH")
class PathSocket(io.ComfyTypeIO):
    """A view per frame."""

    Type = list[View]
