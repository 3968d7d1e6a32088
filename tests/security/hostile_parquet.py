"""Parquet files that lie: footers and page headers with other numbers than the writer put there.

Knows as much of the format as that takes: a file ends with its footer, the footer's length and `PAR1`; numbers in both
footer and page headers are zigzag varints of Thrift's compact protocol.
"""

from __future__ import annotations

import io
import struct

import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = b"PAR1"


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*data, number))


def zigzag(number: int) -> bytes:
    """A number that may be negative, as a varint."""
    return varint((number << 1) ^ (number >> 63))


def written(rows: int, text: str = "hello {}") -> bytes:
    """An honest file of one column `text`: one row group, one plain page."""
    file = io.BytesIO()
    table = pa.table({"text": [text.format(n) for n in range(rows)]})
    pq.write_table(table, file, compression="zstd", use_dictionary=False, write_statistics=False)
    return file.getvalue()


def with_footer(body: bytes, footer: bytes) -> bytes:
    """A file of a body (which begins with the magic) and a footer."""
    return body + footer + struct.pack("<I", len(footer)) + MAGIC


def parted(data: bytes) -> tuple[bytes, bytes]:
    """The body and the footer of a file."""
    (length,) = struct.unpack("<I", data[-8:-4])
    return data[: -8 - length], data[-8 - length : -8]


def claiming_rows(honest: int, claimed: int) -> bytes:
    """A file of `honest` rows whose metadata say `claimed`, everywhere."""
    body, footer = parted(written(honest))
    assert zigzag(honest) in footer
    return with_footer(body, footer.replace(zigzag(honest), zigzag(claimed)))


def claiming_page(field: str, claimed: int) -> bytes:
    """A file whose one page says `claimed` for its size (`uncompressed`, `compressed`) or its number of `values`."""
    honest = written(100)
    metadata = pq.read_metadata(io.BytesIO(honest)).row_group(0).column(0)
    body, footer = parted(honest)
    size = metadata.total_compressed_size
    header = body[4:]
    assert header[:3] == b"\x15\x00\x15", "a data page, then its sizes"
    uncompressed, rest = number_at(header, 3)
    compressed, rest = number_at(header, rest + 1)
    _, rest = number_at(header, rest + 2)  # past `2c 15`, the beginning of the page's own header
    numbers = {"uncompressed": uncompressed, "compressed": compressed, "values": 100}
    head = b"\x15\x00"
    for name in ("uncompressed", "compressed"):
        head += b"\x15" + zigzag(claimed if name == field else numbers[name])
    head += b"\x2c\x15" + zigzag(claimed if field == "values" else numbers["values"])
    changed = head + header[rest:]
    footer = footer.replace(zigzag(size), zigzag(size + len(changed) - len(header)))
    return with_footer(body[:4] + changed, footer)


def number_at(data: bytes, position: int) -> tuple[int, int]:
    """The zigzag varint at `position`, and where it ends."""
    number = shift = 0
    while True:
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), position


def nested(depth: int) -> bytes:
    """A file without rows whose schema is so many groups within each other."""
    group = b"\x35\x02\x18\x01a\x15\x02\x00"  # repetition optional, name a, one child
    leaf = b"\x15\x0c\x25\x02\x18\x01b\x00"  # bytes, optional, name b
    schema = b"\x48\x06schema\x15\x02\x00" + group * depth + leaf
    return with_footer(MAGIC, b"\x15\x02\x19\xfc" + varint(depth + 2) + schema + b"\x16\x00\x19\x0c\x00")
