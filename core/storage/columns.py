"""Tables of 64-bit integers as few bytes: narrow columns that a general compressor finishes.

A column is stored as differences: from its smallest number (form 0), or of each number from the
one before, as differences from the smallest of these (form 1), whichever needs fewer bytes a
number.  Differences have the 0 to 8 bytes that the largest one needs, little-endian, and are
stored plane by plane: the lowest bytes of all, then the next ones, so that like stands with like.
All arithmetic is modulo 2**64.  ``docs/segment_format.md`` is the law.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import numpy as np

from natalog.core.index.pool import Ints

_TABLE: Final = Struct("<BI")
"""Columns, rows."""
_COLUMN: Final = Struct("<BBqq")
"""Form, bytes a difference, smallest difference, first number (form 1; else 0)."""
_SMALLEST: Final = 0
_STEPS: Final = 1


def pack_columns(table: Ints) -> bytes:
    """The bytes of a table (columns x rows), uncompressed.

    >>> len(pack_columns(np.arange(1000)[None] * 10 + 2**40))
    23
    """
    heads = [_TABLE.pack(*table.shape)]
    planes: list[bytes] = []
    for column in table:
        form, first = _SMALLEST, 0
        low, size, cells = _narrowed(column)
        if size and len(column) > 1:
            step, step_size, step_cells = _narrowed(np.diff(column))
            if step_size < size:
                form, first = _STEPS, int(column[0])
                low, size, cells = step, step_size, step_cells
        heads.append(_COLUMN.pack(form, size, low, first))
        if size:
            planes.append(cells[:, :size].T.tobytes())
    return b"".join(heads + planes)


def _narrowed(numbers: Ints) -> tuple[int, int, np.ndarray[tuple[int, int], np.dtype[np.uint8]]]:
    """The smallest number, the bytes that differences from it need, and these as bytes."""
    if not len(numbers):
        return 0, 0, np.empty((0, 8), dtype=np.uint8)
    low = int(numbers.min())
    differences = (numbers - low).astype("<i8", copy=False)
    size = (int(differences.view("<u8").max()).bit_length() + 7) // 8
    return low, size, differences.view(np.uint8).reshape(len(numbers), 8)


def unpack_columns(data: bytes, at: int = 0) -> tuple[Ints, int]:
    """The table whose bytes begin at ``at``, and where they end; ValueError if they are none."""
    width, rows = _checked(data, at, _TABLE)
    at += _TABLE.size
    heads = [_checked(data, at + number * _COLUMN.size, _COLUMN) for number in range(width)]
    at += width * _COLUMN.size
    if rows * width > _CELLS_MAX:
        raise ValueError(f"a table of {rows} rows")
    table: Ints = np.zeros((width, rows), dtype="<i8")
    cells = table.view(np.uint8).reshape(width, rows, 8)
    for number, (form, size, low, first) in enumerate(heads):
        if form > _STEPS or size > 8:
            raise ValueError(f"a column of form {form} with {size} bytes a number")
        column = table[number]
        skipped = form if rows else 0
        count = rows - skipped
        if size and count:
            planes = np.frombuffer(data, np.uint8, size * count, at)
            cells[number, skipped:, :size] = planes.reshape(size, count).T
            at += size * count
        if low:
            column[skipped:] += low
        if form == _STEPS and rows:
            column[0] = first
            np.cumsum(column, out=column)
    return table.astype(np.int64, copy=False), at


_CELLS_MAX: Final = 2**22
"""Far above every table that is written; a bound on what damaged bytes can ask for."""


def _checked(data: bytes, at: int, struct: Struct) -> tuple[int, ...]:
    if at + struct.size > len(data):
        raise ValueError("a table that ends too soon")
    return struct.unpack_from(data, at)
