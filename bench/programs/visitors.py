"""The table that the bench of data asks for rows, as an entity with its repository."""

from typing import Annotated

from eighties.sql import Entity, Repository, Varchar, field


class Visitor(Entity, source="visitors"):
    id: int = field(primary=True)
    name: Annotated[str, Varchar(50)]
    text: Annotated[str, Varchar(500)]


class Visitors(Repository[Visitor]):
    async def get_by_id(self, id: int) -> Visitor | None:
        raise NotImplementedError
