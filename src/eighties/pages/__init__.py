"""The content server: a folder of pages that mix text and Python.

`scanner.py` reads a page, `names.py` its code's names, `compiler.py` makes one function of it.
"""

from __future__ import annotations

from .compiler import CONTEXT_NAMES, CompiledPage, Done, PageContext, compile_page
from .scanner import PageError

__all__ = ["CONTEXT_NAMES", "CompiledPage", "Done", "PageContext", "PageError", "compile_page"]
