"""Ports on which nothing listens, and on which nothing begins to by chance: tests run side by side."""

from __future__ import annotations

import random
import socket

# Below those that the system gives to who asks for any, as every other test does.
PORTS = range(20_000, 32_768)
_dice = random.SystemRandom()


def unused_port() -> int:
    """One of 127.0.0.1: to be refused there, or to listen on again after a while."""
    while True:
        port = _dice.choice(PORTS)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
