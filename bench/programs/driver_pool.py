"""asyncmy's own pool, used as its manual says. `STATEMENT_CACHE`: how many prepared statements a connection keeps."""

import os
from typing import Any
from urllib.parse import urlsplit

SELECT = "SELECT id, name, text FROM visitors WHERE id = %s"
POOL = 8  # as large as ours


class Rows:
    """Opens the pool when it is first asked."""

    def __init__(self) -> None:
        self._pool: Any = None

    async def text(self, id: int) -> str:
        pool = self._pool or await self._open()
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(SELECT, (id,))
            row = await cursor.fetchone()
        return f"{row[1]}: {row[2]}"

    async def _open(self) -> Any:
        import asyncmy

        where = urlsplit(os.environ["DATABASE_URL"])
        self._pool = await asyncmy.create_pool(
            minsize=1,
            maxsize=POOL,
            host=where.hostname,
            port=where.port,
            user=where.username,
            password=where.password,
            db=where.path[1:],
            autocommit=True,
            stmt_cache_size=int(os.environ.get("STATEMENT_CACHE", "0")),
        )
        return self._pool
