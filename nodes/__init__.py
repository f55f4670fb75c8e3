"""The nodes; `NODES` lists them all."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import bridge
from .batch import CombineLatents, ContactSheet, LoadLatents, SaveLatents, SelectLatents
from .blend import BlendGenerators
from .camera import CameraPath, MakeView, RenderPath, WarpView
from .compare import CompareUpscaling, RenderForUpscaling, ScaleConsistency
from .evaluate import EvaluateGenerator
from .explore import Explorer
from .favourites import LoadFavourite, SaveFavourite
from .large import RenderToFile
from .latents import SampleLatents, SampleSeeds, TruncateLatents
from .live import register_route
from .load import LoadGenerator
from .motion import InterpolateLatents, RandomWalk
from .project import ProjectImage
from .render import Render
from .styles import DirectionStrip, EditLatents, FindDirections, LoadDirections, MixStyles, SaveDirections
from .train import SaveGenerator, TrainGenerator

NODES: list[type[io.ComfyNode]] = [
    # From a generator to a picture
    LoadGenerator,
    SampleLatents,
    Render,
    RenderToFile,
    Explorer,
    # Latents
    SampleSeeds,
    SelectLatents,
    CombineLatents,
    TruncateLatents,
    ContactSheet,
    SaveLatents,
    LoadLatents,
    SaveFavourite,
    LoadFavourite,
    InterpolateLatents,
    RandomWalk,
    MixStyles,
    FindDirections,
    EditLatents,
    DirectionStrip,
    SaveDirections,
    LoadDirections,
    BlendGenerators,
    ProjectImage,
    # The camera
    MakeView,
    WarpView,
    CameraPath,
    RenderPath,
    # Comparison with upscaling
    RenderForUpscaling,
    CompareUpscaling,
    ScaleConsistency,
    EvaluateGenerator,
    # Training
    TrainGenerator,
    SaveGenerator,
]


class CrepsExtension(ComfyExtension):
    """Registers the model folders, the explorer's route, and the nodes."""

    async def on_load(self) -> None:
        bridge.register_model_folder()
        register_route()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
