"""Looks over an MCAP file before a library reads it: it is whole, and unpacks to what it says."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from safemesa.core.errors import DatasetError
from safemesa.datasets.importers.extras import import_extra

MAGIC = b"\x89MCAP0\r\n"
HEADER_RECORD, FOOTER, CHUNK, CHUNK_INDEX = 0x01, 0x02, 0x06, 0x08
LARGEST_CHUNK = 2**28
"""Bytes that a chunk may unpack to; recorders write chunks of some megabytes."""
LARGEST_RECORD = 2**28
_ZSTD = b"\x28\xb5\x2f\xfd"


def mcap_profile(path: Path) -> str:
    """What the head of a file says of its content: `ros2`, or anything."""
    with open(path, "rb") as file:
        head = file.read(8 + 9 + 4)
        if not head.startswith(MAGIC) or len(head) < 21 or head[8] != HEADER_RECORD:
            raise DatasetError(
                f"{path} does not begin as an MCAP file does. It is damaged, or of another kind."
            )
        length = struct.unpack("<I", head[17:21])[0]
        return file.read(min(length, 1000)).decode(errors="replace")


def check_chunks(path: Path) -> None:
    """Walks over a file's records: it is whole, and nothing unpacks to more than it says.

    Raises:
        DatasetError: it is cut off, or a chunk is larger than chunks are.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(8) != MAGIC:
            raise DatasetError(f"{path} does not begin as an MCAP file does: damaged, or none.")
        chunks: dict[int, int] = {}
        while True:
            place = file.tell()
            head = file.read(9)
            if len(head) < 9:
                raise _cut(path, place)
            kind, length = struct.unpack("<BQ", head)
            if place + 9 + length > size:
                raise _cut(path, place)
            if kind == CHUNK:
                chunks[place] = 9 + length
                _check_chunk(file, path, place, length)
            elif kind == CHUNK_INDEX:
                _check_index(file.read(length), path, place, chunks)
            elif length > LARGEST_RECORD:
                raise DatasetError(
                    f"{path}: the record at byte {place} has {length} bytes, expected at most "
                    f"{LARGEST_RECORD}."
                )
            file.seek(place + 9 + length)
            if kind == FOOTER:
                if file.read(8) != MAGIC:
                    raise _cut(path, place)
                return


def _check_chunk(file: BinaryIO, path: Path, place: int, length: int) -> None:
    head = file.read(min(length, 64))
    if len(head) < 40:
        raise _cut(path, place)
    unpacked, _, name_length = struct.unpack("<QII", head[16:32])
    compression = head[32 : 32 + name_length]
    if unpacked > LARGEST_CHUNK or name_length > 16:
        raise DatasetError(
            f"{path}: the chunk at byte {place} says that it unpacks to {unpacked} bytes, expected "
            f"at most {LARGEST_CHUNK}: refused."
        )
    file.seek(place + 9 + 40 + name_length)
    data_length = length - 40 - name_length
    if compression not in (b"zstd", b"lz4") or data_length < 0:
        return
    # The library unpacks a chunk before it looks at the size, so it is tried here, with a bound.
    frame = file.read(min(data_length, 18))
    known = _frame_size(compression, frame)
    if known is not None and known == unpacked:
        return
    rest = file.read(data_length - len(frame))
    if _unpacks_to(compression, frame + rest, unpacked + 1) != unpacked:
        raise DatasetError(
            f"{path}: the chunk at byte {place} does not unpack to the {unpacked} bytes that it "
            "says: damaged."
        )


def _frame_size(compression: bytes, frame: bytes) -> int | None:
    """The size that a compressed frame names itself, where it does; decompressors hold it to it."""
    if compression != b"zstd" or not frame.startswith(_ZSTD):
        return None
    zstandard = import_extra("zstandard", "robots")
    size = zstandard.frame_content_size(frame)
    return size if size >= 0 else None


def _unpacks_to(compression: bytes, data: bytes, bound: int) -> int:
    if compression == b"zstd":
        zstandard = import_extra("zstandard", "robots")
        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            total = 0
            while total < bound and (part := stream.read(min(2**20, bound - total))):
                total += len(part)
            return total
    frames = import_extra("lz4.frame", "robots")
    return len(frames.LZ4FrameDecompressor().decompress(data, max_length=bound))


def _check_index(record: bytes, path: Path, place: int, chunks: Mapping[int, int]) -> None:
    if len(record) < 32:
        raise _cut(path, place)
    offset, length = struct.unpack("<QQ", record[16:32])
    if chunks.get(offset) != length:
        raise DatasetError(
            f"{path}: the index at byte {place} names a chunk at byte {offset} that is not there: "
            "damaged."
        )


def _cut(path: Path, place: int) -> DatasetError:
    return DatasetError(
        f"{path} is cut off or damaged at byte {place}. Restore it, or repair it (mcap recover)."
    )
