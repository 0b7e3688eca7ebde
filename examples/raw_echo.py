"""Bytes in, bytes out: the raw level. Serve it with `80s examples/raw_echo.py`, then try `nc localhost 8080`.

A program that defines on_data speaks no HTTP: whatever a client sends arrives here. `childfd` stands for the
connection, `elfd` for the worker's loop. net.write sends at once, and queues what the client does not take yet.
"""

from eighties import net


def on_data(elfd: int, childfd: int, data: bytes, length: int) -> None:
    net.write(elfd, childfd, data)
