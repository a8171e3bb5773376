"""The competition's picture: an ROC curve above the chance line, in numpy and zlib alone.

    python -m mico_competition.hosting.codabench.logo src/mico_competition/pages/logo.png

The file is kept beside the pages, since zlib's bytes differ between its builds; a test holds its
pixels against what is drawn here.
"""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np

SIZE = 400
_PAPER = np.array([[17, 24, 48], [38, 62, 122]], float)  # upper left, lower right
_INK = np.array([236, 240, 250], float)
_CURVE = np.array([255, 184, 77], float)
_AREA = np.array([94, 160, 255], float)
# The plot's corners, as shares of the picture, and the curve's bend: TPR = FPR ** BEND.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.17, 0.86, 0.14, 0.83
_BEND, _MARK = 0.3, 0.1


def draw(size: int = SIZE) -> np.ndarray:
    """The picture, uint8 of shape (size, size, 3)."""
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    pixel = 1 / size
    shade = ((x + y) / 2)[..., None]
    picture = _PAPER[0] * (1 - shade) + _PAPER[1] * shade

    fpr = (x - _LEFT) / (_RIGHT - _LEFT)
    tpr = (_BOTTOM - y) / (_BOTTOM - _TOP)
    inside = np.clip(fpr, 0, 1) ** _BEND
    between = (fpr > 0) & (fpr < 1) & (tpr > fpr) & (tpr < inside)
    picture = _blend(picture, _AREA, 0.28 * between)

    for start, end in (((0, 0), (1, 0)), ((0, 0), (0, 1))):
        picture = _line(picture, x, y, np.array([start, end], float), 0.011, _INK, pixel)
    dashes = np.linspace(0, 1, 23)
    for start, end in zip(dashes[1::2], dashes[2::2]):
        picture = _line(
            picture, x, y, np.array([[start, start], [end, end]]), 0.009, 0.75 * _INK, pixel
        )
    rates = np.linspace(0, 1, 240) ** 3  # dense where the curve is steep
    picture = _line(picture, x, y, np.c_[rates, rates**_BEND], 0.026, _CURVE, pixel)

    mark = np.array([[_MARK, _MARK**_BEND]])
    picture = _line(picture, x, y, np.repeat(mark, 2, axis=0), 0.088, _PAPER[0], pixel)
    picture = _line(picture, x, y, np.repeat(mark, 2, axis=0), 0.064, _INK, pixel)
    return picture.round().astype(np.uint8)


def _blend(picture: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    return picture * (1 - share[..., None]) + colour * share[..., None]


def _line(
    picture: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    points: np.ndarray,
    width: float,
    colour: np.ndarray,
    pixel: float,
) -> np.ndarray:
    """Draw a line through points (FPR, TPR), round at its ends, its edges one pixel soft."""
    px = _LEFT + points[:, 0] * (_RIGHT - _LEFT)
    py = _BOTTOM - points[:, 1] * (_BOTTOM - _TOP)
    distance = np.full(x.shape, np.inf)
    for x0, y0, x1, y1 in zip(px[:-1], py[:-1], px[1:], py[1:]):
        dx, dy = x1 - x0, y1 - y0
        along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-12)
        along = np.clip(along, 0, 1)
        distance = np.minimum(distance, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return _blend(picture, colour, np.clip((width / 2 - distance) / pixel + 0.5, 0, 1))


def png_bytes(picture: np.ndarray) -> bytes:
    """A PNG of an array uint8 of shape (height, width, 3) (RFC 2083)."""
    height, width, _ = picture.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(png_bytes(draw()))
