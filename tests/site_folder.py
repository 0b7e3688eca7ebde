"""Sites for tests: folders written from a mapping of names to texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_site(folder: Path, files: Mapping[str, str | bytes], main: str | None = None) -> Path:
    """Write `public_html` with these files, and main.py beside it; returns the folder above."""
    for name, text in files.items():
        path = folder / "public_html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "public_html").mkdir(parents=True, exist_ok=True)
    if main is not None:
        (folder / "main.py").write_text(main)
    return folder
