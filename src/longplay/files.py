"""Files that outlast a power failure: written, synced and locked in one place.

A file system may keep what a program wrote in memory for half a minute. A file is safe only after
`fsync` of the file, and its name only after `fsync` of its folder. Everything that longplay
acknowledges (a batch, a stage's result, a checkpoint) goes through these functions first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BLOCK_BYTES = 1 << 20
LOCK = ".writer"  # the file by which a folder is locked


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file atomically: after the return it is on disk, and no reader ever sees half of it.

    Args:
        path: the file; its folder exists.
        content: text is written as UTF-8.
    """
    partial = path.with_name(path.name + ".writing")
    data = content.encode() if isinstance(content, str) else content
    with partial.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, path)
    sync_path(path.parent)


def sync_path(path: Path | str) -> None:
    """Put a file's content, or a folder's list of names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Put everything below a folder on disk, and the folder's own name in its parent."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_path(Path(place) / name)
        sync_path(Path(place))
    sync_path(folder.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its absent parents; their names are on disk after the return."""
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in reversed(absent):
        sync_path(place.parent)


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as handle:
        while block := handle.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def tree_digest(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their names.

    Every name is preceded by its length and followed by the digest of its file, so two trees with
    one digest hold the same files under the same names.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     one, two = Path(place) / "one", Path(place) / "two"
    ...     one.mkdir(), two.mkdir()
    ...     _ = (one / "1.csv").write_text("A"), (one / "2.csv").write_text("B"), (two / "1.csv").write_text("A2.csvB")
    ...     tree_digest(one) == tree_digest(two)
    (None, None)
    False
    """
    digest = hashlib.sha256()
    is_folder = path.is_dir()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if is_folder else [path]
    digest.update(b"folder" if is_folder else b"file..")
    for file in files:
        name = os.fsencode(file.relative_to(path).as_posix() if is_folder else file.name)
        digest.update(len(name).to_bytes(8, "big") + name + bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it with `/`; locks are left out."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != LOCK)
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}


def changed_file(folder: Path, digests: Mapping[str, str]) -> str | None:
    """The first file that differs from `digests_of`, and how, in words. Null where all agree."""
    for name, digest in digests.items():
        file = os.path.join(folder, name)  # not a Path: a store has thousands of files
        try:
            same = sha256_of(file) == digest
        except FileNotFoundError:
            return f"{file}: is missing"
        except IsADirectoryError:
            return f"{file}: is a folder, expected a file"
        except OSError as error:
            return f"{file}: cannot be read ({error.strerror})"
        if not same:
            return (
                f"{file}: "
                f"{'is empty' if os.path.getsize(file) == 0 else 'was changed after it was written'}"
            )
    return None


@contextmanager
def writer_lock(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the only writer's lock of a folder, which is created if absent.

    The system releases the lock when a writer dies.

    Args:
        folder: what is locked, by a file `.writer` in it.
        wait: wait for another writer; otherwise the block runs at once.

    Yields:
        Whether the lock is held; always true where `wait` is.
    """
    make_folder(folder)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
