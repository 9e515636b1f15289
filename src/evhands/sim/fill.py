"""Triangles into a canvas: spans of pixels a row, the nearest wins, light linear between the corners; and lens blur.

A canvas is the image of log light with a border of one pixel, (height + 2, at least width + 2): pixel (x, y) of the
sensor lies at [y + 1, x + 1]. No face index and no barycentrics are kept (`evhands.hand.raster` gives those): light is
interpolated while the triangles are filled, which is a third of the work, and a clip takes hundreds of images.
"""

from __future__ import annotations

import platform

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

FACING = np.float32(-1e-3)
"""Triangles of more signed area (px^2, twice) are left out: those that face away, and slivers."""
EDGE = float(np.float32(-1e-6))
"""Pixels whose least weight is at least this belong to a triangle, so that rounding opens no holes between two."""
WIDE = 8
"""Pixels of a row that are tested at once."""
_U = np.uintp  # unsigned indices spare the loops a test for negative ones, which keeps them from vectorising


@njit(cache=True, nogil=True, error_model="numpy")
def fill(corners, faces, canvas, nearest, low, high):  # type: ignore[no-untyped-def]
    """Fill the triangles over the canvas; a corner that is not a number leaves its triangles out.

    corners: (v, 4) float32: pixel x and y, inverse depth, log light; nearest: as the canvas, inverse depth so far;
    low, high: (height + 2,) int32: from and to which column a row of the canvas may be touched, grown here. The same
    numbers come out wherever else something is drawn, so that a still edge stays still.
    """
    rows, columns = canvas.shape
    light, depth = canvas.reshape(-1), nearest.reshape(-1)
    one, first = np.float32(1), np.float32(-1)
    last_row, last_column = np.float32(rows - 2), np.float32(columns - 2)
    for f in range(len(faces)):
        a, b, c = _U(faces[f, 0]), _U(faces[f, 1]), _U(faces[f, 2])
        ax, ay, bx, by = corners[a, 0], corners[a, 1], corners[b, 0], corners[b, 1]
        cx, cy = corners[c, 0], corners[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if not area < FACING:  # outward normals are counter-clockwise, which with y down is a negative area facing us
            continue
        top, bottom = _ceil(max(min(ay, by, cy), first)), _floor(min(max(ay, by, cy), last_row))
        left, right = _ceil(max(min(ax, bx, cx), first)), _floor(min(max(ax, bx, cx), last_column))
        if top > bottom or left > right:
            continue
        inverse = one / area
        # The weights of b and c are linear in the pixel; depth and light are linear in the weights.
        b_x, b_y = (cy - ay) * inverse, (ax - cx) * inverse
        c_x, c_y = (ay - by) * inverse, (bx - ax) * inverse
        za, sa = corners[a, 2], corners[a, 3]
        zb, zc, sb, sc = corners[b, 2] - za, corners[c, 2] - za, corners[b, 3] - sa, corners[c, 3] - sa
        z_x, z_y, s_x, s_y = zb * b_x + zc * c_x, zb * b_y + zc * c_y, sb * b_x + sc * c_x, sb * b_y + sc * c_y
        for start in range(left, right + 1, WIDE):
            start = min(start, columns - 2 - WIDE)  # within the row, so that no write leaves the canvas
            x = np.float32(start) - ax
            for y in range(top, bottom + 1):
                dy = np.float32(y) - ay
                k = _U((y + 1) * columns + 1 + start)
                fill_piece(light, depth, k, x, b_x, c_x, dy * b_y, dy * c_y, za + dy * z_y, z_x, sa + dy * s_y, s_x)  # type: ignore[call-arg]
        for row in range(top + 1, bottom + 2):
            low[row] = min(low[row], left + 1)
            high[row] = max(high[row], right + 2)


@intrinsic
def fill_piece(typing, light, depth, k, x, b_x, c_x, b_row, c_row, z_row, z_x, s_row, s_x):  # type: ignore[no-untyped-def]
    """Eight pixels at once, in the vectors of LLVM: those within the triangle and nearest are written.

    light, depth: flat arrays; k: index of the first pixel; x: where that is, from corner a; then the weights of b and
    c, inverse depth and light at corner a's column, and how much each grows by a column. Numba finds no vectors in the
    same loop, which takes three times as long.
    """
    kinds = (light, depth, types.uintp, *[types.float32] * 9)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        wide = ir.VectorType(ir.FloatType(), WIDE)
        light, depth = (
            builder.bitcast(
                builder.gep(context.make_array(kind)(context, builder, value).data, [values[2]]), wide.as_pointer()
            )
            for kind, value in zip(signature.args[:2], values[:2], strict=True)
        )
        x, b_x, c_x, b_row, c_row, z_row, z_x, s_row, s_x = (_spread(builder, wide, value) for value in values[3:])
        x = builder.fadd(x, ir.Constant(wide, [float(i) for i in range(WIDE)]))
        rows = ((b_row, b_x), (c_row, c_x), (z_row, z_x), (s_row, s_x))
        b, c, z, s = (builder.fadd(row, builder.fmul(x, slope)) for row, slope in rows)
        a = builder.fsub(builder.fsub(ir.Constant(wide, [1.0] * WIDE), b), c)
        before = builder.load(depth, align=4)
        seen = builder.fcmp_ordered(">", z, before)
        for weight in (a, b, c):
            seen = builder.and_(seen, builder.fcmp_ordered(">=", weight, ir.Constant(wide, [EDGE] * WIDE)))
        for new, old, place in ((z, before, depth), (s, builder.load(light, align=4), light)):
            builder.store(_chosen(builder, wide, builder.select(seen, new, old)), place, align=4)
        return context.get_dummy_value()

    return types.void(*kinds), generate


def _chosen(builder, wide, value):  # type: ignore[no-untyped-def]
    """The value, as it is: on x86 an empty instruction hides where it comes from.

    Else LLVM makes one masked store of the choice and the store, and many processors (AMD's up to Zen 3) take tens of
    cycles for that, and must wait for it when they read the place again.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return value
    return builder.asm(ir.FunctionType(wide, [wide]), "", "=x,0", [value], False)


def _spread(builder, wide, value):  # type: ignore[no-untyped-def]
    """A vector of equal numbers."""
    one = builder.insert_element(ir.Constant(wide, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), WIDE), [0] * WIDE))


@njit(cache=True, nogil=True)
def _ceil(value):  # type: ignore[no-untyped-def]
    """Rounding by hand is quick."""
    whole = np.int64(value)
    return whole + 1 if np.float32(whole) < value else whole


@njit(cache=True, nogil=True)
def _floor(value):  # type: ignore[no-untyped-def]
    whole = np.int64(value)
    return whole - 1 if np.float32(whole) > value else whole


@njit(cache=True, nogil=True)
def framed(image, columns):  # type: ignore[no-untyped-def]
    """A canvas of so many columns with an image (h, w) in it; its border is repeated."""
    height, width = image.shape
    canvas = np.empty((height + 2, columns), np.float32)
    canvas[1 : height + 1, 1 : width + 1] = image
    repeat_border(canvas, width)
    return canvas


@njit(cache=True, nogil=True)
def repeat_border(canvas, width):  # type: ignore[no-untyped-def]
    """Fill everything outside the image of a canvas with the nearest pixel of it."""
    for row in canvas[1:-1]:
        row[0] = row[1]
        row[width + 1 :] = row[width]
    canvas[0] = canvas[1]
    canvas[-1] = canvas[-2]


# No contracted arithmetic here: the same pixels give the same bits, wherever they are computed.
@njit(cache=True, nogil=True, forceinline=True)
def blur_down(canvas, y, start, end, down):  # type: ignore[no-untyped-def]
    """(1 2 1)/4 along the columns around row y of the image, for columns start to end of the canvas."""
    quarter, half = np.float32(0.25), np.float32(0.5)
    above, here, below = canvas[y], canvas[y + 1], canvas[y + 2]
    for x in range(_U(start), _U(end)):
        down[x] = quarter * (above[x] + below[x]) + half * here[x]


@njit(cache=True, nogil=True)
def blurred(canvas, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """(1 2 1)/4 in x and y: (y1 - y0, x1 - x0) of the image."""
    quarter, half = np.float32(0.25), np.float32(0.5)
    down = np.empty(canvas.shape[1], np.float32)
    out = np.empty((y1 - y0, x1 - x0), np.float32)
    for y in range(y0, y1):
        blur_down(canvas, y, x0, x1 + 2, down)
        row = out[y - y0]
        for x in range(x1 - x0):
            row[x] = quarter * (down[x0 + x] + down[x0 + x + 2]) + half * down[x0 + x + 1]
    return out
