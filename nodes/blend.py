"""Blending of two generators."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..creps_core.checkpoints import blend_weights, swap_levels
from . import bridge
from .sockets import Model, ModelSocket

_LEVELS = [str(1 << i) for i in range(2, 13)]


class BlendGenerators(io.ComfyNode):
    """Interpolated weights of two generators, or coarse levels of one with fine levels of the other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_BlendGenerators",
            display_name="Blend CREPS Generators",
            category="CREPS/latents",
            description="Combines two generators of the same architecture, of which one was fine-tuned from the other: "
            "interpolates them, or combines the shapes of one with the style of the other.",
            search_aliases=["creps merge", "layer swap", "interpolate weights", "model merge", "toonify"],
            inputs=[
                ModelSocket.Input("model_a", tooltip="The first generator."),
                ModelSocket.Input("model_b", tooltip="The second, of the same architecture."),
                io.DynamicCombo.Input(
                    "how",
                    options=[
                        io.DynamicCombo.Option(
                            "weights",
                            [
                                io.Float.Input(
                                    "amount",
                                    default=0.5,
                                    min=-1.0,
                                    max=2.0,
                                    step=0.05,
                                    tooltip="0 is a, 1 is b; values beyond exaggerate the difference.",
                                )
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "levels",
                            [
                                io.Combo.Input(
                                    "level",
                                    options=_LEVELS,
                                    default="32",
                                    tooltip="The levels of the network from this one on come from b, with the pixel "
                                    "blocks and so the colours; lower levels come from a. The last level of a "
                                    "generator is its training size.",
                                ),
                                io.Float.Input(
                                    "mapping",
                                    default=0.0,
                                    min=0.0,
                                    max=1.0,
                                    step=0.05,
                                    tooltip="The mapping network from seeds to styles: 0 is that of a, 1 that of b.",
                                ),
                            ],
                        ),
                    ],
                    tooltip="weights: interpolate every weight between a and b. levels: coarse levels of a, fine "
                    "levels of b.",
                ),
            ],
            outputs=[ModelSocket.Output(display_name="model", tooltip="The new generator.")],
        )

    @classmethod
    def execute(cls, model_a: Model, model_b: Model, how: dict[str, Any]) -> io.NodeOutput:
        a, b = model_a.generator, model_b.generator
        if how["how"] == "weights":
            blended = blend_weights(a, b, how["amount"])
        else:
            blended = swap_levels(a, b, int(how["level"]), how["mapping"])
        return io.NodeOutput(bridge.to_model(blended))
