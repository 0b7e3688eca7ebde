"""A TCP proxy that does to connections what networks do: cuts, resets, stalls and garbles them, where it is told to.

It lives on the test's loop: `async with Proxy(port) as proxy`, then `proxy.fault = Fault(…)`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

from ports import unused_port

Kind = Literal["close", "reset", "stall", "garbage"]


@dataclass
class Fault:
    """What happens once so many bytes have come from the server since it was set. It happens once."""

    kind: Kind
    after: int = 0
    garbage: bytes = b""


class Proxy:
    """Between clients and one server. `delay` seconds are waited before each part of an answer is handed on."""

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self.fault: Fault | None = None
        self.accepted = 0
        self.port = unused_port()  # so that it is still free when it listens again
        self._server_port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.resume()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Listen no more, and cut all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.sleep(0)

    async def resume(self) -> None:
        """Listen again, on the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def cut(self, reset: bool = False) -> None:
        """End every connection now."""
        for writer in list(self._writers):
            _end(writer, reset)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            _end(writer, True)
            return
        finally:
            self._tasks.discard(task)
        self._writers.add(server_writer)
        for pump in (self._pump(reader, server_writer), self._answers(server_reader, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        _end(writer, False)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.fault is not None and not await self._apply(self.fault, data, writer):
                    break
                if self.fault is None:
                    writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        _end(writer, False)

    async def _apply(self, fault: Fault, data: bytes, writer: asyncio.StreamWriter) -> bool:
        """Hand on what is before the fault, and then do it. False: that was the end."""
        if len(data) < fault.after:
            fault.after -= len(data)
            writer.write(data)
            return True
        writer.write(data[: fault.after])
        data = data[fault.after :]
        self.fault = None
        if fault.kind == "garbage":
            writer.write(fault.garbage + data)
            await writer.drain()
            self.fault = None
            await self._forever()
        if fault.kind == "stall":
            await self._forever()
        await writer.drain()
        await asyncio.sleep(0.01)
        _end(writer, fault.kind == "reset")
        return False

    async def _forever(self) -> None:
        await asyncio.get_running_loop().create_future()


def _end(writer: asyncio.StreamWriter, reset: bool) -> None:
    sock = writer.get_extra_info("socket")
    if reset and sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort() if reset else writer.close()
