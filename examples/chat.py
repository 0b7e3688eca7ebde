"""A chat for everyone on all workers. Serve it with `80s examples/chat.py -c 2`, then join from several terminals:

    curl -N -T . http://localhost:8080/chat

The handler takes the connection over and reads lines by `yield`; what is said goes to every worker by mail.
Netcat will do, too: type `GET /chat HTTP/1.1`, `Host: x` and an empty line.
"""

from collections.abc import Generator
from typing import NamedTuple

from eighties import MultiDict, aio, net

MAX_NAME = 40  # bytes; whoever sends a longer line is shown out, and the log says why
MAX_LINE = 1000
MAX_UNREAD = 64 * 1024  # bytes that may wait for somebody who does not read


class Person(NamedTuple):
    fd: aio.Socket
    name: str


people: dict[int, Person] = {}  # by handle: those connected to this worker


def clean(line: bytes) -> str:
    """Text without control characters: on a terminal they could do anything."""
    return "".join(char for char in line.decode("utf-8", "replace") if char.isprintable()).strip()


def tell(sender: aio.Socket, text: str) -> None:
    """Have every worker pass something on to its people."""
    if not aio.mail(worker=None, sender=sender, message=text):
        sender.write("(the server is busy: nobody heard that)\n")


def on_message(sender_worker: int, sender_fd: int, elfd: int, fd: int, message: bytes) -> None:
    """Mail from a worker, perhaps this one: everyone here but the sender gets it."""
    text = f"\n{message.decode()}\nYou: "
    for handle, person in list(people.items()):
        if (handle, net.info()["worker"]) == (sender_fd, sender_worker):
            continue
        if person.fd.buffered > MAX_UNREAD:
            person.fd.abort()  # nobody may make the server keep the whole evening
        else:
            person.fd.write(text)


def chat(fd: aio.Socket, query: MultiDict, headers: MultiDict, body: bytes) -> Generator[object, bytes, None]:
    """One person, from entering to leaving. When the connection ends, the `yield` that waits raises."""
    fd.http_response(200, "text/plain; charset=utf-8", None)
    fd.write("Enter your name: ")
    name = clean((yield b"\n", MAX_NAME)) or "Nomad"
    people[fd.fd] = Person(fd, name)
    try:
        tell(fd, f"* {name} is here")
        while True:
            fd.write("You: ")
            yield fd.drain()  # of somebody who does not read, nothing is read
            line = clean((yield b"\n", MAX_LINE))
            if line:
                tell(fd, f"{name}: {line}")
    finally:
        del people[fd.fd]
        tell(fd, f"* {name} has left")


aio.stream_http_get("/chat", chat)
aio.stream_http_any("PUT", "/chat", chat)
