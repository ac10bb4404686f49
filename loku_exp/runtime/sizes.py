"""Numbers of bytes, for people."""

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def size_in_words(size: int) -> str:
    """Return a number of bytes in decimal units, as disks are sold."""
    power = min(len(UNITS) - 1, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.{1 if power else 0}f} {UNITS[power]}"
