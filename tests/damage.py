"""What happens to files: one bit turns over."""

from pathlib import Path


def flip(file: Path) -> None:
    """Change one bit in the middle of a file, and nothing of its size."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
