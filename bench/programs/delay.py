"""How late the loop of 80s is for others: a task that sleeps 10 ms over and over, while /echo is under load.

GET /delay gives the overshoots since the last GET /delay as JSON: how many, the greatest and the 99th percentile in ms.
"""

import asyncio
import time

from eighties import App, Request

PAUSE = 0.01

app = App()
overshoots: list[float] = []
tasks: list[asyncio.Task[None]] = []


async def watch() -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(PAUSE)
        overshoots.append(time.perf_counter() - before - PAUSE)


@app.on_start
def start() -> None:
    tasks.append(asyncio.get_running_loop().create_task(watch()))


@app.on_stop
def stop() -> None:
    for task in tasks:
        task.cancel()


@app.get("/echo")
def echo(request: Request) -> str:
    return f"Hi, {request.query.get('name', 'Nomad')}!"


@app.get("/delay")
def delay(request: Request) -> dict[str, float]:
    late = sorted(overshoots) or [0.0]
    overshoots.clear()
    return {"count": len(late), "greatest": late[-1] * 1e3, "p99": late[int((len(late) - 1) * 0.99)] * 1e3}
