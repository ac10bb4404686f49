"""What a file that a user names holds: bytes, and the text they mean; everything else is refused by name.

Read is UTF-8, with or without a byte order mark, and UTF-16 with one.
"""

import codecs
import stat
from pathlib import Path

from loku_exp.errors import DataError

NOT_THE_DATA = {
    b"version https://git-lfs": "a Git LFS pointer, not the data; where it was cloned, run: git lfs pull",
    b"/annex/objects/": "a git-annex pointer, not the data; where it was cloned, run: git annex get",
    b"\x1f\x8b": "compressed (gzip); unpack it, e.g. gunzip",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it, e.g. unzstd",
    b"\xfd7zXZ": "compressed (xz); unpack it, e.g. unxz",
    b"PK\x03\x04": "an archive (zip); unpack it, e.g. unzip",
}
"""By how a file begins: what it is instead of data."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which begins it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_content(file: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        DataError: no such file, a folder, not readable, empty, or something in place of the data.
    """
    try:
        mode = file.stat().st_mode
        content = file.read_bytes() if stat.S_ISREG(mode) else b""  # a pipe would be waited for
    except FileNotFoundError as error:
        aim = f" (a link to {file.readlink()}, which is not there)" if file.is_symlink() else ""
        raise DataError(f"no file {file}{aim}") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {str(file)!r} ({reason})") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{file} is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise DataError(f"{file} is no regular file; copy what it gives into one")
    if not content:
        raise DataError(f"{file} is empty")
    for start, what in NOT_THE_DATA.items():
        if content.startswith(start):
            raise DataError(f"{file} is {what}")
    return content


def read_text(file: Path) -> str:
    """Return the text of a file, without its byte order mark; line ends are as they stand.

    Raises:
        DataError: as `read_content`; another encoding; or NUL bytes.
    """
    content = read_content(file)
    marks = (name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark))
    encoding = next(marks, "utf-8")
    if encoding == "utf-32":
        raise DataError(f"{file} is UTF-32; save it as UTF-8: iconv -f UTF-32 -t UTF-8 FILE > NEW")
    if encoding == "utf-8" and b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise DataError(
            f"{file}, line {line}: holds a NUL byte, as no text does; it is a binary file, or UTF-16 "
            "without a byte order mark: iconv -f UTF-16LE -t UTF-8 FILE > NEW"
        )
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}, line {line}: not {encoding.upper()} (byte 0x{content[error.start]:02x} at "
            f"{error.start}: {error.reason}); save it as UTF-8, e.g. from Western European Windows: "
            "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
        ) from error
    if "\0" in text:
        raise DataError(f"{file} holds a NUL character, as no text does; take it out")
    return text.lstrip("\ufeff")
