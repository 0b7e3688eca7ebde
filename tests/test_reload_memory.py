"""Old programs are freed: whatever they had, and however often they are loaded again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Serve
from reloading import diary, reload, start, write_program
from server import wait_until


def memory(pid: int) -> int:
    """What a process holds that is in no file, in kB: what others do, who run the same Python, does not show in it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:"))


KEPT = """
import contextvars, dataclasses, gc, weakref, enum
from typing import Generic, Optional, TypeVar
from eighties import aio
variable = contextvars.ContextVar("variable")
class Old:
    def __init__(self): self.me = self
    def version(self): return VERSION
class Colour(enum.Enum): RED = 1
@dataclasses.dataclass
class Point:
    x: int = 0
    more: Optional[Old] = None
class Box(Generic[TypeVar("T")]): pass
Boxes = Box[Old]
keep = Old()
state.refs = getattr(state, "refs", []) + [weakref.ref(keep)]
app.on_start(lambda: variable.set(Old()))
aio.http_get("/alive", lambda fd, query, headers, body: fd.http_response(200, None, str(alive())))
aio.add_protocol_handler("p", matches=b"P1", handle=lambda sock: sock.close())
def alive():
    state.refs = [ref for ref in state.refs if ref() is not None]
    return len(state.refs)
BULK = [str(number) for number in range(1000)]
"""
KEPT_DATA = """
from typing import Annotated
import sqlalchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from eighties.sql import Entity, Repository, Varchar, connect, derived, field, orm, query
class Base(DeclarativeBase): pass
class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
class Post(Entity, source="posts"):
    id: int = field(primary=True)
    name: Annotated[str, Varchar(20)]
    colour: Colour
    def version(self): return VERSION
class Users(Repository[User]): pass
class Posts(Repository[Post]):
    @derived("find_all_by_name")
    async def named(self, name: str) -> list[Post]: ...
    @query("SELECT * FROM posts WHERE id > :number")
    async def after(self, number: int) -> list[Post]: ...
if not hasattr(state, "pool"):
    state.pool = connect("sqlite:///data.db")
users, posts = Users(state.pool), Posts(state.pool)
olds = orm.create(state.pool, source="olds", entity={"id": orm.t.int, "name": orm.t.text})
table = sqlalchemy.Table("tables", sqlalchemy.MetaData(), sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
tables = orm.create(state.pool, entity=table)

@app.on_start
async def ask():
    for each in (users, posts, olds, tables):
        await each.create_table(if_missing=True)
    async with state.pool.transaction():
        await posts.save(Post(name="a", colour=Colour.RED))
        await users.save(User(name="a"))
        await olds.insert({"name": "a"})
        for name in ("posts", "users", "olds"):
            await state.pool.exec(f"DELETE FROM {name} WHERE id > 9")
    await asyncio.gather(posts.named("a"), posts.after(1), users.find_by_id(1), olds.all.by_name("a"))
    await aio.cached("numbers", VERSION, lambda: VERSION)
    try:
        await state.pool.exec("SELECT nothing")
    except Exception:
        pass
"""


@pytest.mark.parametrize(
    ("more", "warm_up", "reloads"), [(KEPT, 50, 200), (KEPT + KEPT_DATA, 20, 40)], ids=["program", "data"]
)
def test_old_programs_are_freed(more: str, warm_up: int, reloads: int, serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1, more=more)
    server = start(serve)
    for count in (warm_up, reloads):
        for _ in range(count):
            assert reload(server) == []
        wait_until(lambda: server.get("/alive").text == "1", "one program is left")
        wait_until(lambda: diary(tmp_path).count("stop 1 True") == len(diary(tmp_path)) // 2, "the last hook")
        if count == warm_up:
            before = memory(server.workers[0])
    if "EIGHTIES_SANITIZE" not in os.environ:  # whose allocator keeps what is freed
        assert memory(server.workers[0]) - before < 2048
