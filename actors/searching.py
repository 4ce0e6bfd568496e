"""A search of files for bytes: the proof, where the files are ours, that nothing was left.

Segments are compressed, so what begins like a zstd frame is searched uncompressed as well.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import zstandard

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024


def files_with(directory: Path, wanted: bytes) -> list[Path]:
    """The files below ``directory`` that hold ``wanted``, compressed or not.

    Files that vanish meanwhile are left out.  Reads everything; to be called in a thread.
    """
    return sorted(path for path in _files(directory) if _holds(path, wanted))


def _files(directory: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(directory):  # passes over folders that are gone
        for name in names:
            yield Path(folder, name)


def _holds(path: Path, wanted: bytes) -> bool:
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return data.find(wanted) >= 0 or _holds_compressed(data, wanted)
    except (OSError, ValueError):
        return False


def _holds_compressed(data: mmap.mmap, wanted: bytes) -> bool:
    at = data.find(ZSTD_MAGIC)
    while at >= 0:
        try:
            frame = zstandard.ZstdDecompressor().decompressobj()
            if wanted in frame.decompress(data[at : at + FRAME_BYTES_MAX]):
                return True
        except zstandard.ZstdError:
            pass  # it only looked like one
        at = data.find(ZSTD_MAGIC, at + 1)
    return False


__all__ = ["files_with"]
