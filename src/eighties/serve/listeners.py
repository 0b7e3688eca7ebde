"""Listeners: the listening sockets, which the parent makes and the workers share.

`supervisor` binds them once and holds them for as long as the server lives, whatever becomes of workers. Like all that
the parent imports it uses the C module under `socket`, which brings no enums along.
"""

from __future__ import annotations

import _socket
import os

from .settings import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .settings import Settings

# More connections than this waiting to be accepted are refused; the kernel lowers it to its own limit.
BACKLOG = 4096


class BindError(Exception):
    """A socket cannot be had; the message says why and what to do."""


class Listener:
    """A listening socket, and how a person calls it. `path` is that of a unix socket."""

    __slots__ = ("inode", "path", "socket", "url")

    def __init__(self, socket: _socket.socket, url: str, path: str | None = None) -> None:
        self.socket = socket
        self.url = url
        self.path = path
        self.inode = os.stat(path).st_ino if path else 0
        socket.setblocking(False)
        socket.listen(BACKLOG)
        os.set_inheritable(socket.fileno(), True)

    def pack(self) -> tuple[int, str, str | None]:
        """What `resume` needs."""
        return self.socket.fileno(), self.url, self.path

    @classmethod
    def resume(cls, packed: tuple[int, str, str | None]) -> Listener:
        """The one that this process had before it was replaced."""
        fd, url, path = packed
        return cls(_socket.socket(fileno=fd), url, path)

    def close(self) -> None:
        """Close it, and remove the unix socket's file unless another server's has taken its place."""
        self.socket.close()
        try:
            if self.path and os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        except OSError:
            pass


def bind(settings: Settings) -> list[list[Listener]]:
    """Every listening socket, as a list for each worker; workers share sockets unless `--reuseport`."""
    shared = [bind_unix(settings.uds)] if settings.uds else []
    if shared and settings.source("address") == settings.source("port") == DEFAULT:
        return [shared] * settings.workers
    try:
        first = bind_tcp(settings, settings.port)
        if not settings.reuseport:
            return [[*shared, first]] * settings.workers
        # The plain socket has made sure that nobody else has the port. It gives it up for sockets that share it.
        port = first.socket.getsockname()[1]
        first.close()
        return [[*shared, bind_tcp(settings, port, reuse=True)] for _ in range(settings.workers)]
    except BindError:
        for listener in shared:
            listener.close()
        raise


def bind_tcp(settings: Settings, port: int, reuse: bool = False) -> Listener:
    """A socket bound to the address."""
    family = _socket.AF_INET6 if settings.ipv6 else _socket.AF_INET
    try:
        # As bytes: a text would be encoded by the idna codec, which costs this process a megabyte.
        name = settings.address.encode("ascii")
        found = _socket.getaddrinfo(name, port, family, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        kind = "IPv6" if settings.ipv6 else "IPv4"
        raise BindError(f"{settings.address} is not an {kind} address, nor the name of one") from None
    socket = _socket.socket(family, _socket.SOCK_STREAM)
    socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    if settings.ipv6:
        # Only the wildcard stands for both families.
        socket.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, settings.address != "::")
    if reuse:
        socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
    try:
        socket.bind(found[0][4])
    except OSError as error:
        socket.close()
        raise BindError(explain(error, settings.address, port)) from None
    port = socket.getsockname()[1]
    host = f"[{settings.address}]" if settings.ipv6 else settings.address
    return Listener(socket, f"http://{host}:{port}")


def explain(error: OSError, address: str, port: int) -> str:
    """What to do about a port that cannot be had."""
    if isinstance(error, PermissionError):
        return f"port {port} needs more rights than this user has: choose one above 1023 with -p"
    import errno

    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {address} is in use by another program: choose another one with -p"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this machine"
    return f"cannot listen on {address} port {port}: {error.strerror}"


def bind_unix(path: str) -> Listener:
    """A unix socket at the path. One that a dead server left is removed, a live one's is not."""
    import stat

    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise BindError(f"{path} exists and is not a socket")
        probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise BindError(f"the unix socket {path} is in use by another server")
        finally:
            probe.close()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BindError(f"cannot use the unix socket {path}: {error.strerror}") from None
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        socket.bind(path)
    except OSError as error:
        socket.close()
        raise BindError(f"cannot make the unix socket {path}: {error.strerror or error}") from None
    return Listener(socket, f"unix:{path}", path)
