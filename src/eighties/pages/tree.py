"""The folder tree of a site, and what each file in it is: a page, a static file, private, or nothing.

Names decide, and a look into text files: `read_files` walks the tree once. Keeps no state; `site.py` calls.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from ..media import is_text

MAX_PAGE = 1_000_000
"""Bytes of a file that becomes a page because code is in it (as in the ancestor); `.dyn.` in the name has no limit. So
many are looked through for code, in a larger file, too."""
MAX_DEPTH = 64
"""Folders deep that a tree is followed."""
MAX_FOLDERS = 10_000
"""Folders in a tree: links among a few of them may make many more."""

METHODS = ("post", "put", "delete", "patch")
"""Beginnings of names that choose the method."""
ENCODED = (".br", ".zst", ".gz")
"""Ends of files that hold others, compressed."""

_MARKS = (b"\xff\xfe", b"\xfe\xff")  # that UTF-16 begins with, and UTF-32 of one order
_GAP = rb"\x00{0,3}"
_TAG = re.compile(rb"<G\?G(?:pGy|iGnGcGlGuGdGe)".replace(b"G", _GAP), re.IGNORECASE)
"""`<?py`, `<?pya` or `<?include`, in UTF-8, UTF-16 or UTF-32."""
Identity = tuple[int, int, int]


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


def identity(path: str) -> Identity | None:
    """By what a changed file is told; None: there is no regular file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def code_in(data: bytes, text: bool) -> str:
    """What kind of page a file begins like: "" none; "utf-8"; "wide": in an encoding that no page can have.

    Arguments:
        data: its first MAX_PAGE bytes.
        text: whether it is text by its name, whatever bytes are in it.
    """
    if not text and b"\0" in data and not data.startswith(_MARKS):
        return ""
    match = _TAG.search(data)
    return "" if match is None else "wide" if b"\0" in match[0] else "utf-8"


def holds_code(fd: int, text: bool = False) -> bool:
    """Whether an open file is text with code in it, which must not be sent. Arguments as of `code_in`."""
    return bool(code_in(os.pread(fd, MAX_PAGE, 0), text))


class Tree:
    """One walk through a tree.

    Arguments:
        root: real path of `public_html`.
        static: whether folders called `static` are served.
        judged: which files were pages, by path, from the last walk; replaced by what this one finds.
    """

    def __init__(self, root: str, static: bool, judged: dict[str, tuple[Identity | None, bool]]) -> None:
        self.root = root
        self.judged: dict[str, tuple[Identity | None, bool]] = {}
        self._static = static
        self._before = judged
        self._folders = 0

    def read(self) -> Iterator[File | str]:
        """Every file with a route, in the order of names; and a text for each that should have one and cannot."""
        return self._walk(self.root, "", frozenset((self.root,)))

    def _walk(self, folder: str, below: str, above: frozenset[str]) -> Iterator[File | str]:
        self._folders += 1
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield f"{below or 'public_html'} cannot be read: {error.strerror}"
            return
        folders = {entry.name for entry in found if os.path.isdir(entry.path)}
        pages: set[str] = set()
        for entry in found:
            name = entry.name
            if name in folders or (name.endswith(ENCODED) and name.rpartition(".")[0] in pages):
                continue  # a compressed page is a page's source
            one = self._file(entry.path, f"{below}/{name}" if below else name, below)
            if isinstance(one, File) and one.page:
                pages.add(name)
            if one is not None:
                yield one
        for name in sorted(folders):
            if not _ignored(name) and (name != "static" or self._static):
                yield from self._enter(f"{folder}/{name}", f"{below}/{name}" if below else name, above)

    def _enter(self, folder: str, below: str, above: frozenset[str]) -> Iterator[File | str]:
        real = os.path.realpath(folder)
        if not inside(real, self.root):
            yield f"{below} cannot be served: it leads out of public_html"
        elif real in above:
            return  # a link to a folder that it is in
        elif len(above) >= MAX_DEPTH:
            yield f"{below} is not served: it is {MAX_DEPTH} folders deep"
        elif self._folders >= MAX_FOLDERS:
            yield f"{below} is not served: there are {MAX_FOLDERS} folders before it"
        else:
            yield from self._walk(folder, below, above | {real})

    def _file(self, path: str, shown: str, below: str) -> File | str | None:
        """What a file is; None: it has no route."""
        name = shown.rpartition("/")[2]
        cached = "static" in below.split("/")
        if name.startswith(".") or name.endswith(("~", ".priv")) or ".priv." in name:
            return None
        if not cached and name.lower().endswith((".py", ".pyc", ".pyo")):
            return None  # a program's source is no document
        now = identity(path)
        if now is None:
            return None  # a pipe, or a link to nothing
        if not inside(path, self.root):
            return f"{shown} cannot be served: it leads out of public_html"
        if not shown.isprintable() or any(sign in shown for sign in "{}\\"):
            return f"{ascii(shown)} cannot be served: its name holds characters that no route can have"
        try:
            page = not cached and (".dyn." in name or self._code_in(path, name, now))
        except OSError as error:
            return f"{shown} cannot be read: {error.strerror}"
        method, last = _route_of(name)
        if not below and len(last) == 3 and last[0] in "45" and last.isdecimal() and name.endswith(".html"):
            return File(path, shown, "", "GET", page, cached, int(last))
        url = f"/{below}/{last}" if below else f"/{last}"
        return File(path, shown, url, method, page, cached, 0)

    def _code_in(self, path: str, name: str, now: Identity) -> bool:
        known = self._before.get(path)
        if known is None or known[0] != now:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                known = (now, holds_code(fd, is_text(name)))
            finally:
                os.close(fd)
        self.judged[path] = known
        return known[1]


def _ignored(folder: str) -> bool:
    return folder.startswith("i.") or folder == "__pycache__" or (folder.startswith(".") and folder != ".well-known")


def _route_of(name: str) -> tuple[str, str]:
    """Method and last segment of the URL that a file's name stands for."""
    name = name.replace(".dyn.", ".", 1)
    method = "GET"
    first, _, rest = name.partition(".")
    if first in METHODS and "." in rest.strip("."):  # `post.html` is a page about posts
        method, name = first.upper(), rest
    name = name.removesuffix(".html")
    return method, "" if name == "index" else name
