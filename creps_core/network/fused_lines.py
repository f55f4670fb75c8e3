"""The column/row network of one latent as few large operations, into memory that stays; see `fused_synthesis.py`."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...kernels import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE
from .config import RANK, GeneratorConfig
from .layers import ModulatedLinear
from .layout import SynthesisLayout
from .lines import FourierInput

LAYER_BYTES = 64 << 20
"""Most memory of the features of one layer; longer lines are evaluated in chunks."""
_FOURIER_POSITIONS = 512  # whose phases are computed at a time, in float64


class CastLayer(NamedTuple):
    """What a line layer needs in a dtype."""

    bias: Tensor  # [out], the gain of the activation folded in
    weight: Tensor  # [out, in], memory for the scaled weight, shared by all layers
    transposed: Tensor  # a view of it


class LineLayer(NamedTuple):
    """A layer of the column/row network with views of its memory."""

    layer: ModulatedLinear
    weight: Tensor  # on the device
    scale_in: Tensor  # [in]
    scale_out: Tensor  # [out, 1], of layers that demodulate
    norm: Tensor  # [out], likewise: length of each row of the scaled weight
    scaled: Tensor  # [out, in], scratch shared by all layers


class FourierStyle:
    """The styles of the Fourier features; see `FourierInput`."""

    channels: int

    def __init__(self, source: FourierInput, device: torch.device):
        self._gain, self.channels = source.affine.weight_gain, source.channels
        self._affine = source.affine.weight.detach().to(device), source.affine.bias.detach().to(device)
        self._scale = rearrange(source.weight.to(device), "1 c 1 rank -> rank c") / math.sqrt(source.channels)
        self.style: Tensor = torch.empty_like(self._scale)
        """[2 * RANK, channels], of the columns, then of the rows."""
        self.freqs: Tensor = rearrange(
            source.freqs.to(device, torch.float64), "1 (wave rank) -> rank wave", rank=RANK
        ).contiguous()
        """[RANK, channels / 2] float64, in turns per unit of position."""

    def apply(self, ws: Tensor) -> None:
        """Write `style` for a latent, [num_ws, w_dim]."""
        style = F.linear(ws[:1] * self._gain, *self._affine)
        torch.mul(rearrange(style, "1 (c rank) -> rank c", rank=2 * RANK), self._scale, out=self.style)


class LineNetwork:
    """The layers of the column/row network on a device.

    Args:
        layout: of the synthesis.
        source: its first layer.
        config: of the generator.
        scales: [all inputs + 1], of the inputs of all layers; the network reads its views at each `apply`.
        device: where to work.
    """

    config: GeneratorConfig
    device: torch.device

    def __init__(
        self,
        layout: SynthesisLayout,
        source: FourierInput,
        config: GeneratorConfig,
        scales: Tensor,
        device: torch.device,
    ):
        self.config, self.device = config, device
        self.source: FourierStyle = FourierStyle(source, device)
        outputs = layout.lines[-1].outputs.stop
        self._norms, self._scales_out = (torch.empty(outputs, device=device) for _ in range(2))
        # The gain of the activation commutes with the leaky ReLU: sqrt(2 / n^2) = 1 / sqrt(n^2 / 2).
        self._eps = torch.full((1,), 1e-8 / ACTIVATION_GAIN**2, device=device)
        self._largest = max(slot.layer.weight.numel() for slot in layout.lines)
        scratch = torch.empty(self._largest, device=device)
        self.layers: list[LineLayer] = [
            LineLayer(
                slot.layer,
                slot.layer.weight.detach().to(device),
                scales[slot.inputs],
                self._scales_out[slot.outputs].unsqueeze(1),
                self._norms[slot.outputs],
                shaped(scratch, slot.layer.weight.shape),
            )
            for slot in layout.lines
        ]
        self._cast: dict[torch.dtype, list[CastLayer]] = {}

    def apply(self, ws: Tensor) -> None:
        """Make the scales of outputs of a latent, [num_ws, w_dim], from those of inputs (StyleGAN2 demodulation)."""
        self.source.apply(ws)
        for line in self.layers:
            if line.layer.demodulate:
                torch.mul(line.weight, line.scale_in, out=line.scaled)
                torch.linalg.vector_norm(line.scaled, dim=1, out=line.norm)
        torch.addcmul(self._eps, self._norms, self._norms, value=1 / ACTIVATION_GAIN**2, out=self._scales_out)
        self._scales_out.rsqrt_()

    def cast(self, dtype: torch.dtype) -> list[CastLayer]:
        """The layers in a dtype. Never released: captured graphs read this memory."""
        if dtype not in self._cast:
            with torch.inference_mode(False), torch.no_grad():
                memory = torch.empty(self._largest, dtype=dtype, device=self.device)
                found = []
                for line in self.layers:
                    gain = ACTIVATION_GAIN if line.layer.demodulate else 1.0
                    weight = shaped(memory, line.weight.shape)
                    found.append(CastLayer((line.layer.bias.to(self.device) * gain).to(dtype), weight, weight.T))
                self._cast[dtype] = found
        return self._cast[dtype]

    def evaluate(self, y: Tensor, x: Tensor, out: Tensor, dtype: torch.dtype) -> None:
        """See `AppliedLatent.lines`."""
        positions = torch.cat([y, x]) if len(y) and len(x) else (y if len(y) else x)
        widest = max(self.config.channels(level) for level in self.config.levels)
        size = max(1, min(len(positions), LAYER_BYTES // (RANK * widest * dtype.itemsize)))
        program = None
        for start in range(0, len(positions), size):
            chunk = positions[start : start + size]
            if program is None or program.count != len(chunk):
                program = _LineProgram(self, len(chunk), dtype)
            program.run(chunk, min(max(len(y) - start, 0), len(chunk)), out[:, start : start + size])


class _LineProgram:
    """The layers for a number of positions, bound to their memory."""

    def __init__(self, network: LineNetwork, count: int, dtype: torch.dtype):
        self.network, self.count, self.dtype = network, count, dtype
        config, device, rows = network.config, network.device, count * RANK
        widths = [config.channels(level) for level in config.levels]
        memory = [torch.empty(rows * max(widths), dtype=dtype, device=device) for _ in range(2)]
        self.features = {(i, w): shaped(memory[i], (rows, w)) for i in range(2) for w in set(widths)}
        self.bilines = torch.empty(
            (len(config.biline_levels), rows, config.biline_channels), dtype=dtype, device=device
        )
        self.branches = self.bilines.unbind(0)
        self.styles = network.source.style.chunk(2)  # of the columns, of the rows

    def run(self, positions: Tensor, columns: int, out: Tensor) -> None:
        """[n] positions, the first `columns` of them columns, the others rows -> out [L, n, RANK, B or more]."""
        network, branch, home = self.network, iter(self.branches), 0
        x = self.features[home, network.source.channels]
        self._fourier(positions, columns, rearrange(x, "(n rank) c -> n rank c", rank=RANK))
        for line, (bias, weight, transposed) in zip(network.layers, network.cast(self.dtype), strict=True):
            if line.layer.demodulate:
                torch.mul(line.weight, line.scale_in, out=line.scaled)
                torch.mul(line.scaled, line.scale_out, out=weight)
                home = 1 - home
                y = self.features[home, len(weight)]
                torch.addmm(bias, x, transposed, out=y)
                x = F.leaky_relu_(y, LEAKY_SLOPE).clamp_(-CLAMP, CLAMP)
            else:
                torch.mul(line.weight, line.scale_in, out=weight)
                torch.addmm(bias, x, transposed, out=next(branch))
        self.bilines.clamp_(-CLAMP, CLAMP)
        lines = rearrange(torch.cumsum(self.bilines, 0, dtype=torch.float32), "l (n rank) b -> l n rank b", rank=RANK)
        if columns:
            lines[:, :columns].mul_(0.5)
        out[..., : lines.shape[-1]].copy_(lines)

    def _fourier(self, positions: Tensor, columns: int, out: Tensor) -> None:
        """The modulated Fourier features, [n, RANK, channels]; see `FourierInput`."""
        freqs, start = self.network.source.freqs, 0
        waves = sine = cosine = out[:0]
        chunks = zip(positions[:, None, None].split(_FOURIER_POSITIONS), out.split(_FOURIER_POSITIONS), strict=True)
        for chunk, features in chunks:
            count = len(chunk)
            if start == 0 or count < _FOURIER_POSITIONS:
                waves = torch.empty_like(features, dtype=torch.float32)
                sine, cosine = waves.chunk(2, -1)
            turns = chunk * freqs
            phase = turns.frac_().mul_(2 * math.pi).float()
            torch.sin(phase, out=sine)
            torch.cos(phase, out=cosine)
            if (of_columns := min(max(columns - start, 0), count)) in (0, count):
                torch.mul(waves, self.styles[int(of_columns == 0)], out=features)
            else:
                torch.mul(waves[:of_columns], self.styles[0], out=features[:of_columns])
                torch.mul(waves[of_columns:], self.styles[1], out=features[of_columns:])
            start += count


def shaped(flat: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The first elements of flat memory as a tensor of this shape."""
    return flat[: math.prod(shape)].view(shape)
