"""The types of the nodes' sockets."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_patcher
from comfy_api.latest import io

from ..creps_core import Generator
from ..creps_core.latents import Directions, Latents
from ..creps_core.rendering import View


@dataclass(frozen=True)
class Model:
    """A generator that ComfyUI's memory management loads and unloads."""

    patcher: comfy.model_patcher.ModelPatcher

    @property
    def generator(self) -> Generator:
        return self.patcher.model


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
    """The camera's view of the frame."""

    Type = View


@io.comfytype(io_type="CREPS_PATH")
class PathSocket(io.ComfyTypeIO):
    """A view per frame."""

    Type = list[View]


@io.comfytype(io_type="CREPS_DIRECTIONS")
class DirectionsSocket(io.ComfyTypeIO):
    """Editing directions of one generator."""

    Type = Directions


@io.comfytype(io_type="CREPS_SCENE")
class SceneWidget(io.ComfyTypeIO):
    """What the explorer shows; drawn and edited by web/creps_explorer.js. See `creps_core.explorer.Scene`."""

    Type = dict

    class Input(io.WidgetInput):
        """A widget without a socket."""
