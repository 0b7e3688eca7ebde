"""An echo server on the raw API of 80s."""

from eighties import net


def on_data(elfd: int, childfd: int, data: bytes, length: int) -> None:
    net.write(elfd, childfd, data)
