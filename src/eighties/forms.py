"""What a client sends besides the head: text, JSON, forms with files.

`Request` calls it for `text()`, `json()` and `form()`. A `FormReader` owns one body while it is read, an `Upload`
its file. The client chooses every byte seen here: cost stays linear in what it sends, what is malformed is 400, what is
too much 413. The multipart parser is imported when the first such form comes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, cast

from . import _engine
from .errors import HTTPError

if TYPE_CHECKING:
    from typing import NoReturn

MAX_FIELDS = 1000
"""Fields of one form (413): a few hundred is a large page; each costs far more than its bytes."""
MAX_PART_HEADER = 4096
"""Bytes of one header line of a part (413): room for a long file name, percent-encoded."""
MAX_PART_HEADERS = 8
"""Header fields of one part (413): RFC 7578 §4.8 knows three."""
MAX_TEXT = 1 << 20
"""Bytes of one text field of a multipart form (413); it is held in memory, files are not."""
SPOOL = 256 << 10
"""Bytes of an uploaded file held in memory; the rest goes to a temporary file."""
BLOCK = 64 << 10
"""The parser is fed in such blocks, so what it makes of a body cannot depend on how the body came."""

_CHARSET_NAMES = (
    "utf-8 utf8 us-ascii ascii iso-8859-1 latin1 latin-1 iso-8859-2 iso-8859-5 iso-8859-7 iso-8859-9 iso-8859-15"
    " windows-1250 windows-1251 windows-1252 windows-1253 windows-1254 windows-1255 windows-1256 windows-1257 koi8-r"
    " koi8-u utf-16 utf-16le utf-16be shift_jis euc-jp iso-2022-jp gb2312 gbk gb18030 big5 euc-kr"
)
CHARSETS = frozenset(_CHARSET_NAMES.split())
"""Charsets that a client may choose. Others of Python's are slow by design (punycode, idna) or no charsets at all."""

_BOUNDARY = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'()+_,-./:=? ")


class Upload:
    """A file that a form has brought. False when the field was left empty.

    `filename` is the last part of the name the client gave, never a path; `content_type` is what the client
    claims; `size` is in bytes. `file` is open for reading and closed when the Upload goes.
    """

    __slots__ = ("content_type", "file", "filename", "size")

    def __init__(self, file: IO[bytes], filename: str, content_type: str, size: int) -> None:
        self.file = file
        self.filename = filename
        self.content_type = content_type
        self.size = size

    def __bool__(self) -> bool:
        return bool(self.filename or self.size)

    def __repr__(self) -> str:
        return f"<Upload {self.filename!r} {self.content_type} {self.size} bytes>"

    def __del__(self) -> None:
        self.file.close()

    def read(self) -> bytes:
        """The whole file."""
        self.file.seek(0)
        return self.file.read()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file to `path`, replacing what is there. Blocks for as long as the disk does.

        Raises:
            OSError: as `open` and `write` do.
        """
        from shutil import copyfileobj

        self.file.seek(0)
        with open(path, "wb") as target:
            copyfileobj(self.file, target, BLOCK)


def media_type(header: str) -> tuple[str, dict[str, str]]:
    """A Content-Type as its lower-case type and its parameters (RFC 9110 §8.3.1). The first of a name counts."""
    kind, *rest = header.split(";")
    parameters: dict[str, str] = {}
    for part in rest:
        name, _, value = part.partition("=")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        parameters.setdefault(name.strip().lower(), value)
    return kind.strip().lower(), parameters


def decode(body: bytes, charset: str) -> str:
    """Text from a client's bytes.

    Raises:
        HTTPError: 415 for a charset not in CHARSETS, 400 for bytes that are not of it.
    """
    if charset.lower() not in CHARSETS:
        raise HTTPError(415, "the body's charset is not supported")
    try:
        return body.decode(charset)
    except UnicodeDecodeError as error:
        raise HTTPError(400, f"the body is not {error.encoding}: byte {error.start}, {error.reason}") from None


def read_json(body: bytes) -> Any:
    """JSON from a client's bytes.

    Raises:
        HTTPError: 400 that says where it is not JSON.
    """
    text = decode(body, "utf-8")
    try:
        return _json_decoder()(text)
    except RecursionError:
        raise HTTPError(400, "the body is JSON nested too deeply") from None
    except ValueError as error:
        what = getattr(error, "msg", "")
        if not what:  # not the parser's: NaN, refused below, or a number of more digits than int() takes
            raise HTTPError(400, "the body is not JSON: a number that cannot be read") from None
        place = f"line {getattr(error, 'lineno', 0)}, column {getattr(error, 'colno', 0)}"
        raise HTTPError(400, f"the body is not JSON at {place}: {what}") from None


@functools.cache
def _json_decoder() -> Callable[[str], Any]:
    import json

    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    return json.JSONDecoder(parse_constant=refuse).decode


def urlencoded(body: bytes, max_fields: int) -> _engine.MultiDict:
    """The fields of `a=1&b=2` (WHATWG URL §5.1).

    Raises:
        HTTPError: 413 for more than `max_fields` fields.
    """
    if body.count(b"&") >= max_fields:
        raise HTTPError(413, f"more than {max_fields} form fields")
    return _engine.parse_query(body)


def _multipart() -> Any:
    import multipart  # type: ignore[import-untyped]  # one module without type hints

    return multipart


class FormReader:
    """Takes a multipart/form-data body in pieces (RFC 7578) and gives its fields.

    Arguments:
        content_type: the request's Content-Type, with the boundary.
        max_fields: parts, files among them.
        max_bytes: the whole body.
    Raises:
        HTTPError: 400 for a missing or impossible boundary.
    """

    def __init__(self, content_type: str, max_fields: int, max_bytes: int) -> None:
        boundary = media_type(content_type)[1].get("boundary", "")
        if not 0 < len(boundary) <= 70 or not _BOUNDARY.issuperset(boundary) or boundary[-1] == " ":
            raise HTTPError(400, "multipart form: the boundary is missing or not as RFC 2046 has it")
        self._multipart = _multipart()
        self._parser = self._multipart.PushMultipartParser(
            boundary,
            max_header_size=MAX_PART_HEADER,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=max_fields,
            strict=True,
        )
        self._left = max_bytes
        self._held = bytearray()
        self._pairs: list[tuple[str, str | Upload]] = []
        self._part: Any = None  # the MultipartSegment being read
        self._file: IO[bytes] | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next piece.

        Raises:
            HTTPError: 400 for a malformed body, 413 for one that is too large or has too many parts.
        """
        self._left -= len(chunk)
        if self._left < 0:
            raise HTTPError(413, "the form is too large")
        self._held += chunk
        start = 0
        while len(self._held) - start >= BLOCK:
            self._parse(bytes(self._held[start : start + BLOCK]))
            start += BLOCK
        del self._held[:start]

    def finish(self) -> _engine.MultiDict:
        """The fields, after the last piece.

        Raises:
            HTTPError: as `feed` does.
        """
        if self._held:
            self._parse(bytes(self._held))
        self._parse(b"")
        pairs, self._pairs = self._pairs, []
        return _engine.MultiDict(pairs)

    def close(self) -> None:
        """Let go of the files, unless `finish` has handed them over."""
        if self._file is not None:
            self._file.close()
        for _, value in self._pairs:
            if isinstance(value, Upload):
                value.file.close()

    def _parse(self, block: bytes) -> None:
        try:
            for event in self._parser.parse(block):
                if event is None:
                    self._end_part()
                elif isinstance(event, (bytes, bytearray)):
                    self._add(event)
                else:
                    self._begin_part(event)
        except self._multipart.ParserLimitReached as error:
            raise HTTPError(413, f"multipart form: {error}") from None
        except self._multipart.MultipartError as error:
            raise HTTPError(400, f"multipart form: {error}") from None

    def _begin_part(self, part: Any) -> None:
        from tempfile import SpooledTemporaryFile

        self._part = part
        self._file = cast(IO[bytes], SpooledTemporaryFile(max_size=SPOOL))  # noqa: SIM115 the Upload closes it

    def _add(self, data: bytes | bytearray) -> None:
        assert self._file is not None and self._part is not None
        self._file.write(data)
        if self._part.filename is None and self._part.bytes_received > MAX_TEXT:
            raise HTTPError(413, "multipart form: a text field is too large")

    def _end_part(self) -> None:
        assert self._file is not None and self._part is not None
        part, file, self._file = self._part, self._file, None
        file.seek(0)
        name = part.name or ""
        if part.filename is not None:
            kind = part.content_type or "application/octet-stream"
            self._pairs.append((name, Upload(file, _base_name(part.filename), kind, part.bytes_received)))
            return
        with file:
            self._pairs.append((name, decode(file.read(), part.charset or "utf-8")))


def _base_name(filename: str) -> str:
    """The last part of a client's file name, without control characters: it can be joined to a folder."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in name if char.isprintable())
    return "" if name in (".", "..") else name


def read_fields(content_type: str, body: bytes, max_fields: int) -> _engine.MultiDict:
    """The fields of a whole body of either kind of form.

    Raises:
        HTTPError: 415 when the body is no form, else as `FormReader` and `urlencoded`.
    """
    kind = media_type(content_type)[0]
    if kind == "application/x-www-form-urlencoded" or not (kind or body):
        return urlencoded(body, max_fields)
    if kind != "multipart/form-data":
        raise HTTPError(415, "expected a form: application/x-www-form-urlencoded or multipart/form-data")
    reader = FormReader(content_type, max_fields, len(body))
    try:
        reader.feed(body)
        return reader.finish()
    finally:
        reader.close()
