"""What every server of the bench answers, on 80s: /echo from a plain handler, /aecho from one that is async."""

from eighties import App, Request

app = App()


@app.get("/echo")
def echo(request: Request) -> str:
    return f"Hi, {request.query.get('name', 'Nomad')}!"


@app.get("/aecho")
async def aecho(request: Request) -> str:
    return f"Hi, {request.query.get('name', 'Nomad')}!"
