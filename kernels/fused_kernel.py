# type: ignore
"""The per-pixel stage as one Triton kernel: the features of a tile of pixels never leave the chip.

Imported at its first use, since it needs Triton. `reference.py` is its specification; `packing.py` packs its operands
and `fused.py` launches it.

A program owns a tile of TILE_H x TILE_W pixels; a feature is a block [P, channels], P = TILE_H * TILE_W. The weights
are blocks [in, out] in the order of their use, with the gains of the activations folded in. W stands for 2B; features
of 4B channels are computed and consumed in PARTS slices of H channels, so that everything stays in registers.
"""

import triton
import triton.language as tl

_LEAKY_SLOPE = tl.constexpr(0.2)
_CLAMP = tl.constexpr(256.0)


@triton.jit
def _outer_product(columns, rows, y, x, B: tl.constexpr, RANK: tl.constexpr):
    """The entangled feature [P, B] of a level at the samples y [TILE_H] x x [TILE_W]."""
    channel = tl.arange(0, B)[None, None, :]
    columns += y[:, None, None] * (RANK * B) + channel
    rows += x[None, :, None] * (RANK * B) + channel
    feature = tl.zeros([y.shape[0], x.shape[0], B], tl.float32)
    for k in tl.static_range(RANK):
        feature += tl.load(columns + k * B).to(tl.float32) * tl.load(rows + k * B).to(tl.float32)
    return tl.reshape(feature, [y.shape[0] * x.shape[0], B])


@triton.jit
def _activate(x):
    """Leaky ReLU, without its gain."""
    return tl.maximum(x, (x * _LEAKY_SLOPE).to(x.dtype)).to(x.dtype)  # some versions give float32 for bfloat16


@triton.jit
def _clamp(x):
    """NaN stays NaN, so that an overflow is noticed."""
    limit = tl.full([], _CLAMP, x.dtype)  # some versions of Triton convert a half to float32 for a plain number
    return tl.clamp(x, -limit, limit, propagate_nan=tl.PropagateNan.ALL).to(x.dtype)


@triton.jit
def _operand(x, scale, DTYPE: tl.constexpr, EXACT: tl.constexpr, ACTIVATED: tl.constexpr, CLAMPED: tl.constexpr):
    """A feature [P, n], activated and clamped if asked for, as left operand of a product.

    Returns its upper and lower half, and factors [P, 1] from a sum to the scale of its products and back. EXACT
    represents 22 bits by two float16: each pixel is scaled to 128..256 by a power of two, so that both halves are in
    range whatever the size of the feature; `scale` undoes the same scaling of the weights. Otherwise there is one
    half, and the activation is computed in its dtype, two channels per instruction.
    """
    if not EXACT:
        x = x.to(DTYPE)
    if ACTIVATED:
        x = _activate(x)
    if CLAMPED:
        x = _clamp(x)
    if EXACT:
        power = tl.max(tl.abs(x), 1).to(tl.int32, bitcast=True) & 0x7F800000  # the power of two below, by its bits
        power = tl.minimum(tl.maximum(power, 100 << 23), 190 << 23)  # 2^-27 .. 2^63
        down = ((254 << 23) - power).to(tl.float32, bitcast=True) * 128.0
        x *= down[:, None]
        upper = x.to(DTYPE)
        lower = (x - upper.to(tl.float32)).to(DTYPE)
        weight_scale = tl.load(scale)
        to_product = (down / weight_scale)[:, None]
        to_sum = (power.to(tl.float32, bitcast=True) * (weight_scale / 128.0))[:, None]
    else:
        upper = x
        lower = x
        to_product = 1.0
        to_sum = 1.0
    return upper, lower, to_product, to_sum


@triton.jit
def _add_product(total, x, weights, lower, offset, K: tl.constexpr, N: tl.constexpr, EXACT: tl.constexpr):
    """total [P, N] + operand x [P, K] @ weights[offset:] [K, N]. The weights' lower halves begin at `lower`."""
    upper_x, lower_x, to_product, to_sum = x
    at = offset + tl.arange(0, K)[:, None] * N + tl.arange(0, N)[None, :]
    w = tl.load(weights + at)
    if EXACT:
        total = tl.dot(lower_x, w, total * to_product)
        total = tl.dot(upper_x, w, total)
        total = tl.dot(upper_x, tl.load(weights + lower + at), total) * to_sum
    else:
        total = tl.dot(upper_x, w, total)
    return total


@triton.jit
def _bias(biases, offset, P: tl.constexpr, N: tl.constexpr):
    """biases[offset:] for every pixel, [P, N]: the initial sum of a layer."""
    return tl.zeros([P, N], tl.float32) + tl.load(biases + offset + tl.arange(0, N))[None, :]


@triton.jit
def _decode(feature, weights, biases, scale, lower, PARTS: tl.constexpr, DTYPE: tl.constexpr, EXACT: tl.constexpr):
    """One decoder, [P, B] -> [P, B]."""
    P: tl.constexpr = feature.shape[0]
    B: tl.constexpr = feature.shape[1]
    W: tl.constexpr = 2 * B
    H: tl.constexpr = 2 * W // PARTS
    x = _operand(feature, scale, DTYPE, EXACT, False, False)
    x = _add_product(_bias(biases, 0, P, W), x, weights, lower, 0, B, W, EXACT)
    x = _operand(x, scale, DTYPE, EXACT, True, False)
    total = _bias(biases, 3 * W, P, W)
    for part in tl.static_range(PARTS):
        at = B * W + part * 2 * W * H
        h = _add_product(_bias(biases, W + part * H, P, H), x, weights, lower, at, W, H, EXACT)
        h = _operand(h, scale, DTYPE, EXACT, True, False)
        total = _add_product(total, h, weights, lower, at + W * H, H, W, EXACT)
    x = _operand(total, scale, DTYPE, EXACT, True, False)
    x = _add_product(_bias(biases, 4 * W, P, B), x, weights, lower, B * W + 4 * W * W, W, B, EXACT)
    return _activate(x)


@triton.jit
def _paint(
    feature,
    weights,
    biases,
    scale,
    lower,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    DTYPE: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The image layer and both pixel blocks, [P, B] -> [P, C]."""
    P: tl.constexpr = feature.shape[0]
    B: tl.constexpr = feature.shape[1]
    W: tl.constexpr = 2 * B
    H: tl.constexpr = 2 * W // PARTS
    x = _operand(feature, scale, DTYPE, EXACT, False, False)
    image = _add_product(_bias(biases, 0, P, C), x, weights, lower, 0, B, C, EXACT)
    at = B * C
    a = _add_product(_bias(biases, C, P, W), x, weights, lower, at, B, W, EXACT)
    a = _operand(a, scale, DTYPE, EXACT, True, True)
    b = _add_product(_bias(biases, C + W, P, W), x, weights, lower, at + B * W, B, W, EXACT)
    b = _operand(b, scale, DTYPE, EXACT, True, True)
    at += 2 * B * W
    residual = _bias(biases, C + 4 * W, P, C)
    total = _bias(biases, 2 * C + 4 * W, P, W)
    # Loops at run time: if they are unrolled, the compiler moves all loads to the front and runs out of registers.
    for part in range(PARTS):
        h = _add_product(_bias(biases, C + 2 * W + part * H, P, H), a, weights, lower, at, W, H, EXACT)
        h = _add_product(h, b, weights, lower, at + W * H, W, H, EXACT)
        h = _operand(h, scale, DTYPE, EXACT, True, True)
        residual = _add_product(residual, h, weights, lower, at + 2 * W * H, H, C, EXACT)
        total = _add_product(total, h, weights, lower, at + 2 * W * H + H * C, H, W, EXACT)
        at += 3 * W * H + H * C
    image += _clamp(residual)
    x = _operand(total, scale, DTYPE, EXACT, True, True)
    residual = _bias(biases, 2 * C + 6 * W, P, C)
    for part in range(PARTS // 2):
        h = _add_product(_bias(biases, 2 * C + 5 * W + part * H, P, H), x, weights, lower, at, W, H, EXACT)
        h = _operand(h, scale, DTYPE, EXACT, True, True)
        residual = _add_product(residual, h, weights, lower, at + W * H, H, C, EXACT)
        at += W * H + H * C
    return image + _clamp(residual)


@triton.jit(
    # One compilation for all sizes, strides and blocks of an image.
    do_not_specialize=[
        "height",
        "width",
        "levels",
        "lower",
        "samples_y",
        "samples_x",
        "stride_c",
        "stride_y",
        "stride_x",
    ],
    do_not_specialize_on_alignment=["out"],
)
def entangle_kernel(
    columns,  # [levels, >= height, RANK, B], halved
    rows,  # [levels, >= width, RANK, B]
    weights,  # the blocks of all layers, in the dtype of the products; the lower halves begin at `lower`
    biases,  # float32, of all layers
    scale,  # float32 [2], factors of products with the weights of the decoders, and of the rest
    out,  # [channels, height, width]
    overflow,  # int32 [1], set if a value is not finite
    height: tl.int32,
    width: tl.int32,
    levels: tl.int32,
    lower: tl.int32,
    samples_y: tl.int64,  # from a level of the columns to the next
    samples_x: tl.int64,
    stride_c: tl.int64,
    stride_y: tl.int64,
    stride_x: tl.int64,
    CHANNELS: tl.constexpr,
    C: tl.constexpr,  # CHANNELS, padded
    B: tl.constexpr,
    RANK: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    PARTS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Paint the tile in column `program_id(0)` and row `program_id(1)` of tiles."""
    DTYPE: tl.constexpr = weights.dtype.element_ty
    # Samples beyond the edge repeat those at the edge.
    y = tl.minimum(tl.program_id(1) * TILE_H + tl.arange(0, TILE_H), height - 1)
    x = tl.minimum(tl.program_id(0) * TILE_W + tl.arange(0, TILE_W), width - 1)
    feature = tl.zeros([TILE_H * TILE_W, B], tl.float32)
    level_weights = weights
    level_biases = biases
    for _ in range(levels):
        feature += _outer_product(columns, rows, y, x, B, RANK)
        feature = _decode(feature, level_weights, level_biases, scale, lower, PARTS, DTYPE, EXACT)
        level_weights += 20 * B * B
        level_biases += 9 * B
        columns += samples_y * (RANK * B)
        rows += samples_x * (RANK * B)
    image = _paint(feature, level_weights, level_biases, scale + 1, lower, C, PARTS, DTYPE, EXACT)

    # Padded channels are 0, or NaN if the feature is not finite.
    wrong = tl.max(tl.where(tl.abs(image) < float("inf"), 0, 1))
    tl.store(overflow, 1, mask=wrong > 0)
    if out.dtype.element_ty == tl.uint8:
        image = tl.clamp(image * 127.5 + 128.0, 0.0, 255.0)
    pixel = tl.arange(0, TILE_H * TILE_W)
    pixel_y = (tl.program_id(1) * TILE_H + pixel // TILE_W)[:, None]
    pixel_x = (tl.program_id(0) * TILE_W + pixel % TILE_W)[:, None]
    channel = tl.arange(0, C)[None, :]
    inside = (pixel_y < height) & (pixel_x < width) & (channel < CHANNELS)
    at = channel * stride_c + pixel_y * stride_y + pixel_x * stride_x  # int64, as the strides are
    tl.store(out + at, image.to(out.dtype.element_ty), mask=inside)
