"""`make docs`: every link from one of our Markdown files to another file, or to a heading in one, leads somewhere."""

import re
import sys
from pathlib import Path

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names of a file's headings, as Git hosts make them."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(file: Path) -> list[str]:
    """The links of a file that lead nowhere."""
    broken = []
    for link in LINK.findall(FENCE.sub("", file.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = file.parent / path if path else file
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8"))
        ):
            broken.append(f"{file}: {link} leads nowhere")
    return broken


def main() -> int:
    """Look at README.md, docs/ and whatever else is given."""
    files = [*Path().glob("*.md"), *Path("docs").rglob("*.md"), *Path("bench").glob("*.md")]
    broken = [line for file in sorted(files) for line in broken_links(file)]
    print("\n".join(broken) or f"{len(files)} documents, no broken link")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
