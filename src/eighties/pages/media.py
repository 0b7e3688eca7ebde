"""Media types by the ends of files' names: a fixed table, the same on every machine. Keeps no state."""

from __future__ import annotations

_TEXT = "; charset=utf-8"
_TYPES = {
    "application/atom+xml; charset=utf-8": "atom",
    "application/epub+zip": "epub",
    "application/gzip": "gz tgz",
    "application/json": "json map",
    "application/geo+json": "geojson",
    "application/ld+json": "jsonld",
    "application/manifest+json": "webmanifest",
    "application/pdf": "pdf",
    "application/rss+xml; charset=utf-8": "rss",
    "application/rtf": "rtf",
    "application/vnd.ms-fontobject": "eot",
    "application/wasm": "wasm",
    "application/x-7z-compressed": "7z",
    "application/x-bzip2": "bz2",
    "application/x-tar": "tar",
    "application/x-xz": "xz",
    "application/xhtml+xml; charset=utf-8": "xhtml xht",
    "application/xml; charset=utf-8": "xml xsd xsl",
    "application/zip": "zip",
    "application/zstd": "zst",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg oga opus",
    "audio/wav": "wav",
    "audio/webm": "weba",
    "font/otf": "otf",
    "font/ttf": "ttf",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "image/apng": "apng",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/jpeg": "jpg jpeg",
    "image/jxl": "jxl",
    "image/png": "png",
    "image/svg+xml; charset=utf-8": "svg",
    "image/tiff": "tif tiff",
    "image/webp": "webp",
    "image/x-icon": "ico",
    "model/gltf+json": "gltf",
    "model/gltf-binary": "glb",
    "text/calendar; charset=utf-8": "ics",
    "text/css; charset=utf-8": "css",
    "text/csv; charset=utf-8": "csv",
    "text/html; charset=utf-8": "html htm",
    "text/javascript; charset=utf-8": "js mjs",
    "text/markdown; charset=utf-8": "md markdown",
    "text/plain; charset=utf-8": "txt text log conf ini toml yaml yml py c h sh sql lua",
    "text/tab-separated-values; charset=utf-8": "tsv",
    "text/vcard; charset=utf-8": "vcf",
    "text/vtt; charset=utf-8": "vtt",
    "video/mp4": "mp4 m4v",
    "video/mpeg": "mpeg mpg",
    "video/ogg": "ogv",
    "video/quicktime": "mov",
    "video/webm": "webm",
}
_BY_END = {end: kind for kind, ends in _TYPES.items() for end in ends.split()}


def media_type(name: str, default: str) -> str:
    """The Content-Type of a file, with its charset if it is text, or the default where its end says nothing.

    Arguments:
        name: of the file; what is before the last dot does not matter.
    """
    return _BY_END.get(name.rpartition(".")[2].lower(), default) if "." in name else default


def is_text(name: str) -> bool:
    """Whether a file is text by the end of its name."""
    kind = media_type(name, "")
    return kind.endswith(_TEXT) or kind.endswith("json")
