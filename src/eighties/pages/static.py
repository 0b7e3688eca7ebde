"""ServedFile: one static file as a handler. Its conditions, ranges and encoded siblings, to the letter of RFC 9110.

`site.py` makes one for each file of a site. What browsers ask a thousand times the engine answers alone, from a
`StaticFile` that stands in the file's Route: small files, for two seconds at a time, after which they are looked at
again here. State: what was seen at the last look, in each ServedFile; how much is in memory, in the MemoryCache that
a site's files share.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import logging
import os
import stat
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from .. import _engine
from ..cookies import http_date
from ..errors import HTTPError
from ..http import BINARY, Response
from ..media import media_type
from .conditions import choose_coding, judge, read_ranges, wants_part

if TYPE_CHECKING:
    from ..http import Request

SMALL_FILE = 128 << 10
"""Bytes of a file that is answered from memory; larger ones the kernel sends (sendfile), which is as fast for them."""
MAX_MEMORY = 32 << 20
"""Bytes of files in memory, in each worker."""
LOOK_AGAIN = 2.0
"""Seconds after which a file's encoded siblings are looked for again, and a file in memory is looked at here."""
SETTLED = 1.0
"""Seconds that a file must be unchanged before it stays in memory: the clocks of file systems are coarse, and a second
change within their tick could not be told from the first."""
SIBLING_AGE = 2.0
"""Seconds by which an encoded sibling may be older than its file: who unpacks both does not do it at once."""
CHUNK = 64 << 10
"""Bytes in a piece of a streamed answer of several ranges."""
ATTEMPTS = 50
"""How often a file is opened that is another one each time: whoever replaces it must not be faster than that."""

SIBLINGS = (("br", ".br"), ("zstd", ".zst"), ("gzip", ".gz"))
"""Content codings and the endings of siblings that hold them, the preferred first (RFC 9110 §8.4.1, RFC 7932, 8878)."""

NOT_MODIFIED = ("ETag", "Cache-Control", "Vary", "X-Content-Type-Options")
"""Header fields that a 304 has, too (RFC 9110 §15.4.5)."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # opening a pipe must not wait for its writer
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
_UNREADABLE = (errno.EACCES, errno.EPERM)

Allow = Callable[[str, int], None]
Fields = list[tuple[str, str]]
Identity = tuple[int, int, int]

_logger = logging.getLogger("eighties")


class Opened(NamedTuple):
    """An open regular file. The descriptor is closed when `whole`, a body of all of it, goes."""

    fd: int
    whole: _engine.FileRegion
    status: os.stat_result

    @property
    def identity(self) -> Identity:
        """By what a changed file is told."""
        return self.status.st_mtime_ns, self.status.st_size, self.status.st_ino


class Variant:
    """One representation of a file: as it is, or encoded. `body` is None where it is not in memory."""

    __slots__ = ("body", "coding", "etag", "fields", "identity", "last_modified", "path", "size", "strong_date")

    def __init__(self, path: str, coding: str, identity: Identity) -> None:
        self.path = path
        self.coding = coding
        self.identity = identity
        self.size = identity[1]
        self.body: bytes | None = None
        self.fields: Fields = []
        self.etag = f'"{identity[0]:x}-{identity[1]:x}{coding and "-"}{coding}"'
        # Never later than Date (RFC 9110 §8.8.2.1), which is up to a second old; before 1970 there is no HTTP
        modified = identity[0] // 10**9
        self.last_modified = max(0, min(modified, int(time.time()) - 1))
        # Its own date was never sent within that second, so no second version has it (RFC 9110 §8.8.2.2)
        self.strong_date = modified if modified == self.last_modified else None

    def describe(self, more: Fields) -> None:
        """Make the fields of its answers."""
        date = http_date(datetime.fromtimestamp(self.last_modified, UTC))
        self.fields = [("ETag", self.etag), *more, ("Last-Modified", date), ("Accept-Ranges", "bytes")]
        if self.coding:
            self.fields.append(("Content-Encoding", self.coding))

    def as_static(
        self, kind: str, body: bytes, encodings: list[tuple[bytes, _engine.StaticFile]]
    ) -> _engine.StaticFile:
        """It as the engine answers with it."""
        both = [pair for pair in self.fields if pair[0] in NOT_MODIFIED]
        more = [pair for pair in self.fields if pair[0] not in NOT_MODIFIED]
        return _engine.StaticFile(
            self.path,
            mtime_ns=self.identity[0],
            size=self.size,
            inode=self.identity[2],
            content_type=kind.encode(),
            fields=_lines(both),
            more=_lines(more),
            etag=self.etag.encode(),
            last_modified=dict(self.fields)["Last-Modified"].encode(),
            body=body,
            encodings=encodings,
        )


def _lines(fields: Fields) -> bytes:
    """Fields as a head has them."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode()


class MemoryCache:
    """How much is in memory, of all files that share it; when it is too much, the oldest goes first.

    A file counts as new whenever it is looked at again, which is while it is asked for. Files are held weakly: those of
    a site that has been read anew go with it.

    Arguments:
        limit: in bytes.
    """

    def __init__(self, limit: int = MAX_MEMORY) -> None:
        self.limit = limit
        self.used = 0
        self._held: dict[weakref.ref[ServedFile], int] = {}
        self._answering: list[weakref.ref[ServedFile]] = []

    def keep(self, served: ServedFile, size: int) -> None:
        """Count a file that the engine answers from now on, and have it looked at again in a while."""
        self._drop(weakref.ref(served))
        while self._held and self.used + size > self.limit:
            oldest = next(iter(self._held))
            other = oldest()
            self._drop(oldest)
            if other is not None:
                other.release()
        held = weakref.ref(served, self._drop)
        self._held[held] = size
        self.used += size
        if not self._answering:
            # In nobody's context: it would hold the variables of who asked, and so a program that is gone.
            asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look_again, context=contextvars.Context())
        self._answering.append(held)

    def drop(self, served: ServedFile) -> None:
        """Count a file no more."""
        self._drop(weakref.ref(served))

    def _drop(self, held: weakref.ref[ServedFile]) -> None:
        self.used -= self._held.pop(held, 0)

    def _look_again(self) -> None:
        answering, self._answering = self._answering, []
        for held in answering:
            served = held()
            if served is not None and served.route is not None:
                served.route.file = None


class ServedFile:
    """A static file as the handler of its route.

    `served.route`, which whoever makes the Route sets, is where the engine finds the file while it is in memory.

    Arguments:
        path: of the file, absolute.
        root: of the site, a real path: what a symbolic link leads to must be in it.
        immutable: whether clients may keep it for a week without asking; they ask each time otherwise.
        allow: `allow(path, fd)` is called with every version of the file before it is sent, and raises to refuse it;
            with every version of its encoded siblings, too, which are not there if it refuses them.
        cache: what bounds the memory of many files.
    """

    def __init__(
        self,
        path: str,
        root: str,
        *,
        immutable: bool = False,
        allow: Allow | None = None,
        cache: MemoryCache | None = None,
    ) -> None:
        self.path = path
        self.root = root
        self.kind = media_type(path, BINARY)
        self.route: _engine.Route | None = None
        self._caching = "public, max-age=604800, immutable" if immutable else "no-cache"
        self._allow = allow
        self._cache = MemoryCache() if cache is None else cache
        self._plain: Variant | None = None  # as last seen, and allowed
        self._encoded: dict[str, Variant] = {}
        self._static: _engine.StaticFile | None = None
        self._look_at = 0.0
        self._told = False

    def __call__(self, request: Request) -> Response:
        """The answer to a request.

        Raises:
            HTTPError: 404 when there is no such file, or it cannot be read or leads out of the root; 412 and 416 by the
                request's conditions and ranges; 503 when the process cannot open any file.
            Exception: what `allow` raised.
        """
        plain, opened = self._look()
        if request.method != "GET" and request.method != "HEAD":
            return self._other(request, plain, opened)
        variant = plain
        if self._encoded:
            variant, opened = self._negotiate(request.headers, plain, opened)
        return self._answer(request, variant, opened)

    def whole(self, request: Request) -> Response:
        """The file as it is, without conditions, ranges, and validators: for an answer of another status.

        Raises:
            HTTPError, Exception: as for a request.
        """
        plain, opened = self._look()
        return _respond(plain, opened, self.kind, self._common())

    def release(self) -> None:
        """Be no longer in memory."""
        self._cache.drop(self)
        self._static = None
        for variant in (self._plain, *self._encoded.values()):
            if variant is not None:
                variant.body = None
        if self.route is not None:
            self.route.file = None

    # ---- looking at the file ----

    def _look(self) -> tuple[Variant, Opened]:
        """The file as it is now, and allowed."""
        try:
            opened = _open(self.path)
            plain = self._plain
            due = time.monotonic() >= self._look_at
            if due or plain is None or plain.identity != opened.identity:
                opened = _in_place(self.path, self.root, opened)
            if plain is None or plain.identity != opened.identity:
                plain, due = self._meet(opened), True
        except OSError as error:
            self._forget()
            raise self._refusal(error) from None
        self._told = False
        if due:
            self._look_around(plain, opened)
        self._hand_over(plain)
        return plain, opened

    def _hand_over(self, plain: Variant) -> None:
        """Have the engine answer from now on, if the file is in memory."""
        if self._static is not None and self.route is not None and self.route.file is not self._static:
            self._cache.keep(self, plain.size + sum(one.size for one in self._encoded.values()))
            self.route.file = self._static

    def _forget(self) -> None:
        self.release()
        self._plain = None
        self._encoded = {}

    def _meet(self, opened: Opened) -> Variant:
        """A version of the file that has not been seen. Raises what `allow` raises."""
        self._forget()
        if self._allow is not None:
            self._allow(self.path, opened.fd)
        self._plain = Variant(self.path, "", opened.identity)
        return self._plain

    def _look_around(self, plain: Variant, opened: Opened) -> None:
        """Find encoded siblings, and take everything into memory where it is small."""
        self._look_at = time.monotonic() + LOOK_AGAIN
        siblings = [(coding, self._sibling(coding, ending, plain)) for coding, ending in SIBLINGS]
        found = {coding: sibling for coding, sibling in siblings if sibling is not None}
        seen = {coding: variant.identity for coding, variant in self._encoded.items()}
        if {coding: sibling.identity for coding, sibling in found.items()} != seen or not plain.fields:
            self.release()
            self._encoded = {
                coding: Variant(self.path + ending, coding, found[coding].identity)
                for coding, ending in SIBLINGS
                if coding in found
            }
            for variant in (plain, *self._encoded.values()):
                variant.describe(self._common())
        if self._static is None and self.route is not None and self.route.method == "GET":
            self._take_in([(plain, opened), *((self._encoded[coding], one) for coding, one in found.items())])

    def _sibling(self, coding: str, ending: str, plain: Variant) -> Opened | None:
        """An encoded sibling that can be sent."""
        path = self.path + ending
        known = self._encoded.get(coding)
        try:
            opened = _open(path)
            if known is None or known.identity != opened.identity:
                opened = _in_place(path, self.root, opened)
                if self._allow is not None:
                    self._allow(path, opened.fd)
        except Exception:  # noqa: BLE001 it is not there, or `allow` refuses it
            return None
        return opened if opened.identity[0] >= plain.identity[0] - SIBLING_AGE * 10**9 else None

    def _take_in(self, files: list[tuple[Variant, Opened]]) -> None:
        """Read a small file and its siblings for the engine to answer with. Not while any of them is being written."""
        now = time.time_ns()
        for variant, _ in files:
            if variant.size > SMALL_FILE or 0 <= now - variant.identity[0] < SETTLED * 10**9:
                return
        if sum(variant.size for variant, _ in files) > self._cache.limit:
            return
        bodies = [body for body in (_read(opened) for _, opened in files) if body is not None]
        if len(bodies) < len(files):
            return
        for (variant, _), body in zip(files, bodies, strict=True):
            variant.body = body
        encoded = list(zip(self._encoded.values(), bodies[1:], strict=True))
        siblings = [(variant.coding.encode(), variant.as_static(self.kind, body, [])) for variant, body in encoded]
        self._static = files[0][0].as_static(self.kind, bodies[0], siblings)

    def _refusal(self, error: OSError) -> HTTPError:
        """What a client is told of a file that cannot be opened; the log is told once."""
        absent = error.errno in _ABSENT
        if not absent and not self._told:
            self._told = True
            _logger.warning("%s cannot be served: %s", self.path, error.strerror)
        return HTTPError(404 if absent or error.errno in _UNREADABLE else 503)

    # ---- answering ----

    def _common(self) -> Fields:
        """Fields of every answer that has the file."""
        fields = [("Cache-Control", self._caching), ("X-Content-Type-Options", "nosniff")]
        return [*fields, ("Vary", "Accept-Encoding")] if self._encoded else fields

    def _negotiate(self, headers: _engine.MultiDict, plain: Variant, opened: Opened) -> tuple[Variant, Opened]:
        """The representation that the client likes best (RFC 9110 §12.5.3), as it is now."""
        for _ in range(2):
            coding = choose_coding(headers.getall("accept-encoding"), self._encoded)
            variant = self._encoded.get(coding)
            if variant is None:
                break
            try:
                sibling = _open(variant.path)
            except OSError:
                sibling = None
            if sibling is not None and sibling.identity == variant.identity:
                return variant, sibling
            self._look_around(plain, opened)  # it has changed, or gone
            self._hand_over(plain)
        return plain, opened

    def _answer(self, request: Request, variant: Variant, opened: Opened) -> Response:
        """The answer to GET and HEAD (RFC 9110 §13.2.2)."""
        headers = request.headers
        status = judge(headers, request.method, variant.etag, variant.last_modified)
        if status == 304:  # RFC 9110 §15.4.5
            return Response(None, 304, [pair for pair in variant.fields if pair[0] in NOT_MODIFIED])
        if status:
            raise self._refused(status)
        if request.method == "GET" and "range" in headers:
            ranges = read_ranges(headers, variant.size)
            if ranges is not None and wants_part(headers, variant.etag, variant.strong_date):
                return self._part(request, variant, opened, ranges)
        return _respond(variant, opened, self.kind, variant.fields)

    def _other(self, request: Request, plain: Variant, opened: Opened) -> Response:
        """The answer to other methods. The file is not what a GET would be answered with: no validators, no ranges."""
        status = judge(request.headers, request.method, plain.etag, plain.last_modified)
        if status:
            raise self._refused(status)
        return _respond(plain, opened, self.kind, self._common())

    def _part(self, request: Request, variant: Variant, opened: Opened, ranges: list[tuple[int, int]]) -> Response:
        """Some of the file: 206, 416, or after all the whole (RFC 9110 §14.2, 15.3.7, 15.5.17)."""
        if not ranges:
            raise self._refused(416, ("Content-Range", f"bytes */{variant.size}"))
        fields = variant.fields
        if "if-range" in request.headers:  # who has a part has had these (RFC 9110 §15.3.7)
            fields = [field for field in fields if field[0] not in ("Last-Modified", "Accept-Ranges")]
        if len(ranges) == 1:
            start, stop = ranges[0]
            fields = [*fields, ("Content-Range", f"bytes {start}-{stop - 1}/{variant.size}")]
            body = self._region(opened, start, stop) if variant.body is None else variant.body[start:stop]
            return Response(body, 206, fields, self.kind)
        if variant.coding:  # nowhere is it said whether Content-Encoding would be the parts' or that of their envelope
            return _respond(variant, opened, self.kind, variant.fields)
        return self._parts(variant, opened, ranges, fields)

    def _parts(self, variant: Variant, opened: Opened, ranges: list[tuple[int, int]], fields: Fields) -> Response:
        """Several parts of the file, as multipart/byteranges (RFC 9110 §15.3.7.2, 14.6)."""
        boundary = os.urandom(12).hex()
        size = variant.size
        heads = [
            f"\r\n--{boundary}\r\nContent-Type: {self.kind}\r\nContent-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
            for start, stop in ranges
        ]
        parts = [(head.encode(), *span) for head, span in zip(heads, ranges, strict=True)]
        end = f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/byteranges; boundary={boundary}"
        if variant.body is not None:
            pieces = [head + variant.body[start:stop] for head, start, stop in parts]
            return Response(b"".join(pieces) + end, 206, list(fields), kind)
        length = sum(len(head) + stop - start for head, start, stop in parts) + len(end)
        body = _read_parts(opened, parts, end)
        return Response.stream(body, 206, length=length, content_type=kind, headers=fields)

    def _region(self, opened: Opened, start: int, stop: int) -> _engine.FileRegion:
        """A part of the file as a body, with a descriptor of its own."""
        try:
            return _own(os.dup(opened.fd), start, stop - start)
        except OSError as error:
            raise self._refusal(error) from None

    def _refused(self, status: int, *fields: tuple[str, str]) -> HTTPError:
        """412 or 416. Without Cache-Control: it is not the file that may be kept."""
        return HTTPError(status, headers=[*fields, *(one for one in self._common() if one[0] != "Cache-Control")])


def _respond(variant: Variant, opened: Opened, kind: str, fields: Fields) -> Response:
    """The whole file. The fields are copied: hooks may change those of a response."""
    return Response(opened.whole if variant.body is None else variant.body, 200, list(fields), kind)


def _open(path: str) -> Opened:
    """Open a regular file, and never wait. Raises OSError."""
    fd = os.open(path, _FLAGS)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
    except BaseException:
        os.close(fd)
        raise
    return Opened(fd, _own(fd, 0, status.st_size), status)


def _own(fd: int, start: int, length: int) -> _engine.FileRegion:
    """Part of a file as a body, which closes the descriptor when it goes."""
    try:
        return _engine.FileRegion(fd, start, length)
    except BaseException:
        os.close(fd)
        raise


def _in_place(path: str, root: str, opened: Opened) -> Opened:
    """A file that has been opened under its path, if it is within the root and still there; else what is there now.

    Raises:
        OSError: it leads out of the root; there is no file any more; it is replaced all the time.
    """
    for _ in range(ATTEMPTS):
        real = os.path.realpath(path)
        if not real.startswith(root.rstrip("/") + "/"):
            raise PermissionError(errno.EPERM, "it leads out of the site", path)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(real), opened.status):
                return opened
        opened = _open(path)
    raise OSError(errno.EBUSY, "it is being replaced", path)


def _read(opened: Opened) -> bytes | None:
    """All of a small file; None: it is being written."""
    body = os.pread(opened.fd, opened.status.st_size + 1, 0)
    now = os.fstat(opened.fd)
    same = len(body) == now.st_size and (now.st_mtime_ns, now.st_size) == opened.identity[:2]
    return body if same else None


async def _read_parts(opened: Opened, parts: list[tuple[bytes, int, int]], end: bytes) -> AsyncGenerator[bytes]:
    """The pieces of an answer with several parts. `opened` is held, so the file is closed whether it is sent or not."""
    for head, start, stop in parts:
        yield head
        while start < stop:
            chunk = os.pread(opened.fd, min(CHUNK, stop - start), start)
            if not chunk:  # no answer must look complete that is not
                raise ConnectionError("the file has become shorter while it was sent")
            yield chunk
            start += len(chunk)
    yield end
