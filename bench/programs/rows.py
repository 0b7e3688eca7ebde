"""One row by its id: by the plain client, by a repository, and by the driver's own pool. For the bench of data."""

import os

from driver_pool import Rows
from visitors import Visitors

from eighties import App, Request
from eighties.sql import connect

SELECT = "SELECT id, name, text FROM visitors WHERE id = %s"


app = App()
client = connect(os.environ["DATABASE_URL"])
visitors = Visitors(client)
driver = Rows()


@app.get("/plain")
async def plain(request: Request) -> str:
    row = await client.select_one(SELECT, int(request.query["id"]))
    return f"{row['name']}: {row['text']}"


@app.get("/derived")
async def by_derived(request: Request) -> str:
    visitor = await visitors.get_by_id(int(request.query["id"]))
    assert visitor is not None
    return f"{visitor.name}: {visitor.text}"


@app.get("/by_id")
async def by_id(request: Request) -> str:
    visitor = await visitors.find_by_id(int(request.query["id"]))
    assert visitor is not None
    return f"{visitor.name}: {visitor.text}"


@app.get("/driver")
async def by_driver(request: Request) -> str:
    return await driver.text(int(request.query["id"]))


@app.get("/none")
async def none(request: Request) -> str:
    """What the rest of a handler costs."""
    return f"Visitor {int(request.query['id'])}: no row"
