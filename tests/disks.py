"""Real file systems for tests: one of a few megabytes, and one on an image that is copied as a power cut leaves it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: pyarrow's threads close a part a moment after it was read; a process that is left uses a disk for longer
_STILL_USED_S = 5.0


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a file system is not permitted here: {done.stderr.strip()}")


def _unmount(place: Path) -> None:
    deadline = time.monotonic() + _STILL_USED_S
    while (done := subprocess.run(["umount", str(place)], check=False, capture_output=True, text=True)).returncode:
        if time.monotonic() < deadline:
            time.sleep(0.05)
            continue
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # nothing is left behind, whoever still uses it
        pytest.fail(f"a process outlived its test: {done.stderr.strip()}")


@contextmanager
def small_disk(place: Path, size_mb: int) -> Iterator[Path]:
    """A file system of so many megabytes."""
    place.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(place))
    try:
        yield place
    finally:
        _unmount(place)


def enlarge(place: Path, size_mb: int) -> None:
    """Give a small disk another size while it is in use."""
    subprocess.run(["mount", "-o", f"remount,size={size_mb}m", str(place)], check=True)


@contextmanager
def image_disk(image: Path, place: Path) -> Iterator[Path]:
    """An ext4 file system on an image, made where there is none yet."""
    place.mkdir()
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(48 << 20)
        made = subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=False, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"an ext4 file system cannot be made here: {made.stderr.strip()}")
    _mount("-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        _unmount(place)


def copy_image(image: Path, copy: Path) -> None:
    """Copy what has reached an image: a cut of the power leaves no more than that.

    Whoever writes must have been stopped. The kernel may still do so: a copy during which it did is made anew.
    """
    while True:
        before = image.stat().st_mtime_ns
        subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
        if image.stat().st_mtime_ns == before:
            return
