"""What the pages of the bench share, and a plain handler to hold them against."""

from eighties import App, Request

# A thousand rows of two texts, every tenth with something to escape.
ROWS = [
    (f"Visitor {number}", "Fish & chips <for two>" if number % 10 == 0 else "The quick brown fox jumps over it")
    for number in range(1000)
]
TITLE = "The bench"

app = App()


@app.get("/echo")
def echo(request: Request) -> str:
    return f"Hi, {request.query.get('name', 'Nomad')}!"
