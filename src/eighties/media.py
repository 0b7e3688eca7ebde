"""Media types by the ends of files' names: a fixed table, the same on every machine. Keeps no state."""

from __future__ import annotations

_TYPES = {
    "text/html": "html htm",
    "text/css": "css",
    "text/javascript": "js mjs cjs",
    "text/plain": "txt text log ini conf cfg toml py c h sh sql",
    "text/markdown": "md markdown",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/calendar": "ics",
    "text/vcard": "vcf",
    "text/vtt": "vtt",
    "application/xml": "xml xsl xsd",
    "application/xhtml+xml": "xhtml",
    "application/rss+xml": "rss",
    "application/atom+xml": "atom",
    "application/yaml": "yaml yml",
    "application/json": "json map",
    "application/ld+json": "jsonld",
    "application/geo+json": "geojson",
    "application/manifest+json": "webmanifest",
    "application/x-ndjson": "ndjson jsonl",
    "application/pdf": "pdf",
    "application/rtf": "rtf",
    "application/epub+zip": "epub",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/zip": "zip whl",
    "application/gzip": "gz tgz",
    "application/zstd": "zst",
    "application/x-bzip2": "bz2",
    "application/x-xz": "xz",
    "application/x-7z-compressed": "7z",
    "application/x-tar": "tar",
    "application/java-archive": "jar",
    "application/wasm": "wasm",
    "application/vnd.apple.mpegurl": "m3u8",
    "application/dash+xml": "mpd",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/jxl": "jxl",
    "image/heic": "heic",
    "image/bmp": "bmp",
    "image/tiff": "tif tiff",
    "image/x-icon": "ico",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "font/ttf": "ttf",
    "font/otf": "otf",
    "font/collection": "ttc",
    "video/mp4": "mp4 m4v",
    "video/webm": "webm",
    "video/ogg": "ogv",
    "video/quicktime": "mov",
    "video/mp2t": "ts m2ts",
    "video/x-matroska": "mkv",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/ogg": "ogg oga opus",
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/midi": "mid midi",
    "audio/webm": "weba",
    "model/gltf+json": "gltf",
    "model/gltf-binary": "glb",
}
# These are text whose encoding must be said; JSON is always UTF-8 (RFC 8259 §8.1), SVG says it itself.
_WITH_CHARSET = ("text/", "application/xml", "application/xhtml+xml", "application/rss+xml", "application/atom+xml")
_BY_ENDING = {
    ending: f"{kind}; charset=utf-8" if kind.startswith(_WITH_CHARSET) else kind
    for kind, endings in _TYPES.items()
    for ending in endings.split()
}


def media_type(name: str, default: str) -> str:
    """The Content-Type of a file by its name (RFC 9110 §8.3), from a fixed table: the same on every machine.

    Arguments:
        name: of the file, with or without folders; the last ending counts, in any case.
        default: of endings that are not in the table.
    """
    name = name.rpartition("/")[2]
    dot = name.rfind(".")
    return _BY_ENDING.get(name[dot + 1 :].lower(), default) if dot >= 0 else default


def is_text(name: str) -> bool:
    """Whether a file is text by its name."""
    kind = media_type(name, "").partition(";")[0]
    return kind.startswith("text/") or kind.endswith(("json", "xml", "yaml"))
