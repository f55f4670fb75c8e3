"""A synthesis network as few large operations, for devices where an operation costs more than its arithmetic.

The same numbers as `Synthesis.line_styles`, `bilines` and `pixel_stage` of one latent, by another route: the affine
layers of all styles are one matrix product, both lines go through the layers as one batch, and everything is written
into memory that stays where it is, so that a picture is a fixed series of operations without a look at the host. That
is what a CUDA graph can replay.
"""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...common.float32 import float32_products
from ...kernels.packing import PendingStage
from ...kernels.reference import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE
from ...kernels.stage import Layer, PixelBlock, PixelStage
from .config import RANK
from .generator import Synthesis
from .layers import ModulatedLinear

LAYER_BYTES = 64 << 20
"""What the features of one layer may take; longer lines go through in pieces."""
_FOURIER_POSITIONS = 512  # whose phases are computed at a time, in float64


class _Styled(NamedTuple):
    """A layer of the line network, and its places in the memory of all scales."""

    layer: ModulatedLinear
    weight: Tensor  # on the device
    scale_in: Tensor  # [in], a view
    scale_out: Tensor  # [out, 1], a view; of layers that demodulate


class FusedSynthesis:
    """The synthesis of one latent at a time. `apply` a latent, then `lines` and `fill`, holding `lock` meanwhile.

    Args:
        synthesis: its weights are read where they lie, or copied if that is another device; the affine layers are laid
            together (34 MB for a 512 model of the published widths).
        device: where to work.
    """

    def __init__(self, synthesis: Synthesis, device: torch.device):
        self.synthesis, self.config, self.device = synthesis, synthesis.config, device
        self.lock = threading.RLock()
        self._places = _places_of_weights(synthesis)
        self._key = self._weights_key()
        config = self.config
        blocks = [getattr(synthesis, f"b{level}") for level in config.levels]
        lines = [
            (layer, max(2 * i - 1, 1) + k)
            for i, block in enumerate(blocks)
            for k, layer in enumerate(c for c in block.children() if isinstance(c, ModulatedLinear))
        ]
        heads = [(getattr(block, name), config.num_ws - 1) for block in (synthesis.block0, synthesis.block1)
                 for name in ("fc0", "fc1", "tores")]  # fmt: skip
        layers = lines + heads
        with torch.inference_mode(False), torch.no_grad():  # memory that serves in both modes
            gain = layers[0][0].affine.weight_gain
            affine = torch.cat([layer.affine.weight.to(device) for layer, _ in layers]).mul_(gain)
            self._affine = affine.T
            self._affine_bias = torch.cat([layer.affine.bias.to(device) for layer, _ in layers])
            widths = [layer.weight.shape[1] for layer, _ in layers]
            total, starts = sum(widths), [0]
            for width in widths:
                starts.append(starts[-1] + width)
            # Every layer reads the scales that its own style makes: which of [num_ws, total] those are.
            rows = torch.cat([torch.full((width,), w) for (_, w), width in zip(layers, widths, strict=True)])
            self._picked = (rows * total + torch.arange(total)).to(device)
            roots = [1.0 if layer.demodulate else 1 / math.sqrt(layer.weight.shape[1]) for layer, _ in layers]
            self._roots = torch.cat([torch.full((n,), root) for n, root in zip(widths, roots, strict=True)]).to(device)
            self._scales = torch.ones(total + 1, device=device)  # the last one stays 1
            self._all_scales = torch.empty(config.num_ws, total, device=device)

            outs = [len(layer.weight) if layer.demodulate else 0 for layer, _ in lines]
            self._norms = torch.empty(sum(outs), device=device)
            self._scales_out = torch.empty(sum(outs), device=device)
            # The gain of the activation commutes with the leaky ReLU: sqrt(2 / n^2) = 1 / sqrt(n^2 / 2).
            self._tiny = torch.full((1,), 1e-8 / ACTIVATION_GAIN**2, device=device)
            self._lines: list[_Styled] = []
            norms, start_out = [], 0
            for (layer, _), start, width, out in zip(lines, starts, widths, outs, strict=False):
                places = slice(start_out, start_out + out)
                scale_out = self._scales_out[places].unsqueeze(1)
                scale_in = self._scales[start : start + width]
                self._lines.append(_Styled(layer, layer.weight.detach().to(device), scale_in, scale_out))
                norms.append(self._norms[places])
                start_out += out
            self._norm_of = norms
            largest = max(layer.weight.numel() for layer, _ in lines)
            self._scratch = torch.empty(largest, device=device)
            self._temporary = [_shaped(self._scratch, layer.weight.shape) for layer, _ in lines]

            start = starts[len(lines)]
            self._head_in = self._scales[start:]
            self._head_squares, self._head_eps = _head_demodulation([layer for layer, _ in heads], device)
            self._head_out = torch.ones(len(self._head_eps) + 1, device=device)

            source = synthesis.b4.input
            self._source = source.affine.weight.detach().to(device), source.affine.bias.detach().to(device)
            weight = rearrange(source.weight.to(device), "1 c 1 rank -> rank c")
            self._source_scale = weight / math.sqrt(source.channels)
            self._source_style = torch.empty_like(self._source_scale)
            self._freqs = rearrange(
                source.freqs.to(device, torch.float64), "1 (wave rank) -> rank wave", rank=RANK
            ).contiguous()
        self._memory: dict[torch.dtype, list[tuple[Tensor, Tensor, Tensor]]] = {}

    @property
    def current(self) -> bool:
        """Whether the weights lie where they lay, unchanged (in place, of inference tensors, is not counted)."""
        return self._key == self._weights_key()

    def _weights_key(self) -> list[tuple[int, int]]:
        weights = [held[name] for held, name in self._places]
        return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]

    # A latent

    @torch.no_grad()
    def apply(self, ws: Tensor) -> None:
        """Make the scales of all layers from the styles of a latent, [num_ws, w_dim] float32 on the device."""
        torch.addmm(self._affine_bias, ws, self._affine, out=self._all_scales)
        scales = self._scales[:-1]
        torch.index_select(self._all_scales.view(-1), 0, self._picked, out=scales)
        scales.mul_(self._roots)
        style = F.linear(ws[:1] * self.synthesis.b4.input.affine.weight_gain, *self._source)
        torch.mul(rearrange(style, "1 (c rank) -> rank c", rank=2 * RANK), self._source_scale, out=self._source_style)
        for styled, temporary, norm in zip(self._lines, self._temporary, self._norm_of, strict=True):
            if styled.layer.demodulate:
                torch.mul(styled.weight, styled.scale_in, out=temporary)
                torch.linalg.vector_norm(temporary, dim=1, out=norm)
        torch.addcmul(self._tiny, self._norms, self._norms, value=1 / ACTIVATION_GAIN**2, out=self._scales_out)
        self._scales_out.rsqrt_()
        squares = self._head_in[:-1].square()
        torch.addmv(self._head_eps, self._head_squares, squares, out=self._head_out[:-1]).rsqrt_()

    def fill(self, pending: PendingStage) -> None:
        """Put the latent into the packed weights of the per-pixel stage (of `raw_stage`)."""
        pending.fill(pending.scaled(self._head_in, self._head_out))

    def raw_stage(self) -> PixelStage:
        """The per-pixel stage without a latent: the blocks' weights as they are stored."""
        synthesis, names = self.synthesis, (*self.config.biline_levels[1:], "last")

        def raw(block) -> PixelBlock:
            layers = (block.fc0, block.fc1, block.tores)
            return PixelBlock(*(Layer(layer.weight.to(self.device), layer.bias.to(self.device)) for layer in layers))

        with torch.no_grad():
            return PixelStage(
                decoders=tuple(
                    tuple(Layer(*layer.scaled(self.device)) for layer in getattr(synthesis, f"decoder_{name}"))
                    for name in names
                ),
                image=Layer(*synthesis.decoder_img.scaled(self.device)),
                blocks=(raw(synthesis.block0), raw(synthesis.block1)),
            )

    # Its lines

    @torch.no_grad()
    def lines(self, y: Tensor, x: Tensor, out: Tensor, dtype: torch.dtype, *, tf32: bool = False) -> None:
        """Evaluate both lines of the latent that was applied.

        Args:
            y, x: [ny] and [nx] positions, float64 on the device; either may be empty.
            out: [L, ny + nx, RANK, B or more] of any float dtype: the columns, halved, then the rows. More channels
                than the bi-lines have stay as they are.
            dtype: of the matrix products.
            tf32: let products of float32 be computed in TF32.
        """
        positions = torch.cat([y, x]) if len(y) and len(x) else (y if len(y) else x)
        widest = max(self.config.channels(level) for level in self.config.levels)
        piece = max(1, min(len(positions), LAYER_BYTES // (RANK * widest * dtype.itemsize)))
        with float32_products(self.device, tf32):
            program = None
            for start in range(0, len(positions), piece):
                part = positions[start : start + piece]
                if program is None or program.count != len(part):
                    program = _Program(self, len(part), dtype)
                program.run(part, min(max(len(y) - start, 0), len(part)), out[:, start : start + piece])

    def memory(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For every layer of the lines its bias in a dtype, gain inside, and memory for its weight, also transposed.

        It is never let go: a graph that was captured reads it.
        """
        if dtype not in self._memory:
            with torch.inference_mode(False), torch.no_grad():
                flat = torch.empty(len(self._scratch), dtype=dtype, device=self.device)
                found = []
                for layer, *_ in self._lines:
                    gain = ACTIVATION_GAIN if layer.demodulate else 1.0
                    weight = _shaped(flat, layer.weight.shape)
                    found.append(((layer.bias.to(self.device) * gain).to(dtype), weight, weight.T))
                self._memory[dtype] = found
        return self._memory[dtype]


class _Program:
    """The layers for a number of positions, tied to their memory."""

    def __init__(self, lean: FusedSynthesis, count: int, dtype: torch.dtype):
        self.lean, self.count, self.dtype = lean, count, dtype
        config, device, rows = lean.config, lean.device, count * RANK
        widths = [config.channels(level) for level in config.levels]
        self.memory = [torch.empty(rows * max(widths), dtype=dtype, device=device) for _ in range(2)]
        self.features = {(i, w): _shaped(self.memory[i], (rows, w)) for i in range(2) for w in set(widths)}
        self.bilines = torch.empty(
            (len(config.biline_levels), rows, config.biline_channels), dtype=dtype, device=device
        )
        self.branches = self.bilines.unbind(0)
        self.styles = lean._source_style.chunk(2)  # of the columns, of the rows

    def run(self, positions: Tensor, columns: int, out: Tensor) -> None:
        """[n] positions, the first so many of them `columns` -> out [L, n, RANK, B or more]."""
        lean, branch, home = self.lean, iter(self.branches), 0
        x = self.features[home, lean.synthesis.b4.input.channels]
        self._source(positions, columns, rearrange(x, "(n rank) c -> n rank c", rank=RANK))
        for styled, temporary, (bias, weight, transposed) in zip(
            lean._lines, lean._temporary, lean.memory(self.dtype), strict=True
        ):
            if styled.layer.demodulate:
                torch.mul(styled.weight, styled.scale_in, out=temporary)
                torch.mul(temporary, styled.scale_out, out=weight)
                home = 1 - home
                y = self.features[home, len(weight)]
                torch.addmm(bias, x, transposed, out=y)
                x = F.leaky_relu_(y, LEAKY_SLOPE).clamp_(-CLAMP, CLAMP)
            else:
                torch.mul(styled.weight, styled.scale_in, out=weight)
                torch.addmm(bias, x, transposed, out=next(branch))
        self.bilines.clamp_(-CLAMP, CLAMP)
        lines = rearrange(torch.cumsum(self.bilines, 0, dtype=torch.float32), "l (n rank) b -> l n rank b", rank=RANK)
        if columns:
            lines[:, :columns].mul_(0.5)
        out[..., : lines.shape[-1]].copy_(lines)

    def _source(self, positions: Tensor, columns: int, out: Tensor) -> None:
        """The modulated Fourier features, [n, RANK, channels]; see `FourierInput`."""
        lean, start = self.lean, 0
        waves = sine = cosine = out[:0]
        parts = zip(positions[:, None, None].split(_FOURIER_POSITIONS), out.split(_FOURIER_POSITIONS), strict=True)
        for part, features in parts:
            count = len(part)
            if start == 0 or count < _FOURIER_POSITIONS:
                waves = torch.empty_like(features, dtype=torch.float32)
                sine, cosine = waves.chunk(2, -1)
            turns = part * lean._freqs
            phase = turns.frac_().mul_(2 * math.pi).float()
            torch.sin(phase, out=sine)
            torch.cos(phase, out=cosine)
            if (of_columns := min(max(columns - start, 0), count)) in (0, count):
                torch.mul(waves, self.styles[int(of_columns == 0)], out=features)
            else:
                torch.mul(waves[:of_columns], self.styles[0], out=features[:of_columns])
                torch.mul(waves[of_columns:], self.styles[1], out=features[of_columns:])
            start += count


def _places_of_weights(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Where the weights of a module are to be found: moving it may put others there."""
    held = [h for m in module.modules() for h in (m._parameters, m._buffers)]
    return [(h, name) for h in held for name, weight in h.items() if weight is not None]


def _head_demodulation(layers: list[ModulatedLinear], device: torch.device) -> tuple[Tensor, Tensor]:
    """S [out, in] and e [out] over all layers of the pixel blocks, such that their scales of outputs are
    1 / sqrt(e + S scales_in^2): the sum of squares of a layer that demodulates, 1 for the others.
    """
    weights = [layer.weight.detach().to(device) for layer in layers]
    squares = torch.block_diag(
        *(w.square() if layer.demodulate else torch.zeros_like(w) for layer, w in zip(layers, weights, strict=True))
    )
    eps = torch.cat([torch.full((len(layer.weight),), 1e-8 if layer.demodulate else 1.0) for layer in layers])
    return squares, eps.to(device)


def _shaped(flat: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    return flat[: math.prod(shape)].view(shape)
