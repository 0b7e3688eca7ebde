"""The folders that the bench of pages serves, and what their pages have to answer."""

import os
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

SITE = Path(__file__).resolve().parent / "programs" / "site"
ROOT = "public_html"
IMAGE = "image.jpg"
IMAGE_SIZE = 67_000  # bytes
SEED = 80  # every run measures the same bytes
CHANGED = 1_000_000_000  # when all files were, as their dates say: a server may watch closely what has just changed
PER_FOLDER = 50  # pages
ROWS = 1000

HEADER = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <?py | <title>{title}</title> ?>
  <link rel="stylesheet" href="/style.css">
</head>
<body>
<header><a href="/">Articles</a> <nav><a href="/about">About</a> <a href="/search">Search</a></nav></header>
"""
ARTICLE = """\
<?py title, tags = {title!r}, {tags!r} ?>
<?include ../header.priv.html ?>
<article>
  <h1>{title}</h1>
{paragraphs}
  <ul class="tags">
<?py
  for tag in tags:
      url = f"/tags/{{tag}}"
      | <li><a href="#[[url]]">#[[tag]]</a></li>
  if query.get("print"):
      | <p class="print">Printed from #[[endpoint]]</p>
?>
  </ul>
</article>
"""
WORDS = (
    "a page is text and code a server sends it and a browser shows it between them lies a socket whoever saves the file"
    " has changed the site no build no deployment no restart only the next request which finds what was written"
).split()


@dataclass(frozen=True)
class Page:
    """A path to ask for, and the body of its answer."""

    path: str
    body: bytes


def make_site(folder: Path) -> None:
    """A copy of programs/site with an image in it."""
    shutil.copytree(SITE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ROOT / IMAGE).write_bytes(random.Random(SEED).randbytes(IMAGE_SIZE))
    _settle(folder)


def body_of_page(name: str, written: str) -> bytes:
    """What a page of the site answers whose one block has written so."""
    text = (SITE / ROOT / name).read_text()
    text = re.sub(r"<\?include (\S+) \?>", lambda found: (SITE / ROOT / found[1]).read_text(), text)
    return re.sub(r"<\?pya?\s.*?\?>", lambda _: written, text, flags=re.DOTALL).encode()


def rows() -> str:
    """What the block of table.html writes."""
    plain, escaped = "The quick brown fox jumps over it", "Fish &amp; chips &lt;for two&gt;"
    texts = (escaped if number % 10 == 0 else plain for number in range(ROWS))
    return "".join(f"<tr><td>Visitor {number}</td><td>{text}</td></tr>\n" for number, text in enumerate(texts))


def make_articles(folder: Path, count: int) -> list[Page]:
    """A site of so many pages as people write them, of 1 to 2 kB: an include, paragraphs, a few lines of code."""
    chance = random.Random(SEED)
    root = folder / ROOT
    root.mkdir(parents=True)
    (root / "header.priv.html").write_text(HEADER.format(title="#[[title]]"))
    pages = [_make_article(root, number, chance) for number in range(count)]
    _settle(folder)
    return pages


def _settle(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (CHANGED, CHANGED))


def _make_article(root: Path, number: int, chance: random.Random) -> Page:
    title = f"Article {number}"
    tags = chance.sample(sorted(set(WORDS)), 3)
    paragraphs = "\n".join(f"  <p>{_sentences(chance)}</p>" for _ in range(chance.randint(2, 4)))
    path = f"part{number // PER_FOLDER}/article{number}"
    (root / path).parent.mkdir(exist_ok=True)
    (root / f"{path}.html").write_text(ARTICLE.format(title=title, tags=tags, paragraphs=paragraphs))
    header = re.sub(r"<\?py.*\?>", f"<title>{title}</title>", HEADER)
    items = "".join(f'<li><a href="/tags/{tag}">{tag}</a></li>\n' for tag in tags)
    body = f"\n{header}\n<article>\n  <h1>{title}</h1>\n{paragraphs}\n"
    return Page(f"/{path}", f'{body}  <ul class="tags">\n{items}\n  </ul>\n</article>\n'.encode())


def _sentences(chance: random.Random) -> str:
    return " ".join(" ".join(chance.choices(WORDS, k=12)).capitalize() + "." for _ in range(chance.randint(4, 6)))
