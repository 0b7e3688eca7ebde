"""The folder tree of a site, and what each file in it is: a page, a static file, private, or nothing.

Names decide, and the first look into a text file: `read_files` walks the tree once. Keeps no state; `site.py` calls.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import NamedTuple

from ..media import is_text

MAX_PAGE = 1_000_000
"""Bytes of a file that becomes a page because code is in it (as in the ancestor); `.dyn.` in the name has no limit."""
MAX_DEPTH = 64
"""Folders deep that a tree is followed: links among folders may make it endless."""
LOOK = 8192
"""Bytes at the beginning of a large file in which a NUL says that it is no text."""

METHODS = ("post", "put", "delete", "patch")
"""Beginnings of names that choose the method."""
CODE = (b"<?py", b"<?include")


class File(NamedTuple):
    """A file with a route.

    Arguments:
        path: absolute.
        name: relative to the root, as messages show it.
        url: decoded path of its route.
        method: of its route, in capitals.
        page: whether it is a page; a static file otherwise.
        cached: whether it stands below a folder `static`.
        status: which status it answers, for `404.html` and the like; 0: it has a route.
    """

    path: str
    name: str
    url: str
    method: str
    page: bool
    cached: bool
    status: int


def inside(path: str, root: str) -> bool:
    """Whether a path, with all symbolic links followed, is within the root, itself a real path."""
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip("/") + "/")


def holds_code(fd: int, text: bool = False) -> bool:
    """Whether an open file is text with `<?py` or `<?include` in it.

    Arguments:
        text: whether it is text by its name, whatever bytes are in it.
    """
    size = os.fstat(fd).st_size
    if size == 0:
        return False
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as content:
        if not text and content.find(b"\0", 0, size if size < MAX_PAGE else LOOK) >= 0:
            return False
        return any(content.find(word) >= 0 for word in CODE)


def read_files(root: str, static: bool = True) -> Iterator[File | str]:
    """Every file with a route, in the order of names; and a text for each that should have one and cannot.

    Arguments:
        root: real path of `public_html`.
        static: whether folders called `static` are served.
    """
    for folder, names in _folders(root, root, static, frozenset((root,))):
        below = folder.removeprefix(root).strip("/")
        for name in names:
            path = f"{folder}/{name}"
            shown = f"{below}/{name}" if below else name
            if not inside(path, root) or not os.path.isfile(path):
                continue
            found = _file(path, shown, below)
            if found is not None:
                yield found


def _folders(folder: str, root: str, static: bool, above: frozenset[str]) -> Iterator[tuple[str, list[str]]]:
    """This folder and those below it, each with the names of its files."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    yield folder, [entry.name for entry in found if not entry.is_dir()]
    for entry in found:
        if not entry.is_dir() or _ignored(entry.name) or (entry.name == "static" and not static):
            continue
        real = os.path.realpath(entry.path)
        if inside(real, root) and real not in above and len(above) < MAX_DEPTH:
            yield from _folders(entry.path, root, static, above | {real})


def _ignored(folder: str) -> bool:
    return folder.startswith("i.") or folder == "__pycache__" or (folder.startswith(".") and folder != ".well-known")


def _file(path: str, shown: str, below: str) -> File | str | None:
    """What a file is; None: it has no route."""
    name = shown.rpartition("/")[2]
    cached = "static" in below.split("/")
    if name.startswith(".") or name.endswith("~") or ".priv." in name:
        return None
    if not cached and name.endswith((".py", ".pyc", ".pyo")):
        return None  # a program's source is no document
    if not shown.isprintable() or any(sign in shown for sign in "{}\\"):
        return f"{ascii(shown)} cannot be served: its name holds characters that no route can have"
    try:
        page = not cached and (".dyn." in name or _code_in(path, name))
    except OSError as error:
        return f"{shown} cannot be read: {error.strerror}"
    method, last = _route_of(name)
    if not below and len(last) == 3 and last[0] in "45" and last.isdecimal() and name.endswith(".html"):
        return File(path, shown, "", "GET", page, cached, int(last))
    url = f"/{below}/{last}" if below else f"/{last}"
    return File(path, shown, url, method, page, cached, 0)


def _code_in(path: str, name: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return holds_code(fd, is_text(name))
    finally:
        os.close(fd)


def _route_of(name: str) -> tuple[str, str]:
    """Method and last segment of the URL that a file's name stands for."""
    name = name.replace(".dyn.", ".", 1)
    method = "GET"
    first, _, rest = name.partition(".")
    if first in METHODS and "." in rest.strip("."):  # `post.html` is a page about posts
        method, name = first.upper(), rest
    name = name.removesuffix(".html")
    return method, "" if name == "index" else name
