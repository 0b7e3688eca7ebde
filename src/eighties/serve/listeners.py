"""Listeners: the listening sockets, which the parent makes and the workers share.

`supervisor` binds them once, or takes those that it was started with (`--fd`, or systemd's by sd_listen_fds(3)), and
holds them for as long as the server lives, whatever becomes of workers. Like all that the parent imports it uses the C
module under `socket`, which brings no enums along.
"""

from __future__ import annotations

import _socket
import os

from .settings import DEFAULT, FIRST_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from .settings import Settings

# More connections than this waiting to be accepted are refused; the kernel lowers it to its own limit.
BACKLOG = 4096
# Sockets that systemd may hand over: far more than any unit has.
MOST_INHERITED = 1024


class BindError(Exception):
    """A socket cannot be had; the message says why and what to do."""


class Listener:
    """A listening socket, and how a person calls it. `path` is that of a unix socket."""

    __slots__ = ("inode", "path", "socket", "url")

    def __init__(self, socket: _socket.socket, url: str, path: str | None = None, inode: int = 0) -> None:
        self.socket = socket
        self.url = url
        self.path = path
        self.inode = inode or (os.stat(path).st_ino if path else 0)
        socket.setblocking(False)
        if not listens(socket):  # else its queue is as long as who made it wants
            socket.listen(BACKLOG)
        os.set_inheritable(socket.fileno(), False)

    def pack(self) -> tuple[int, str, str | None, int]:
        """What `resume` needs."""
        return self.socket.fileno(), self.url, self.path, self.inode

    @classmethod
    def resume(cls, packed: tuple[int, str, str | None, int]) -> Listener:
        """The one that this process had before it was replaced."""
        fd, url, path, inode = packed
        return cls(_socket.socket(fileno=fd), url, path, inode)

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
    given = take_given(os.environ)
    fds = given if settings.fd is None else [int(fd) for fd in settings.fd.split(",")]
    for fd in {*given} - {*fds}:  # no worker needs them
        keep_from_children(fd)
    if fds and settings.reuseport:
        raise BindError("--reuseport makes a socket for each worker, but this server was started with its sockets")
    shared: list[Listener] = []
    try:
        shared += map(inherit, dict.fromkeys(fds))
        if settings.uds:
            shared.append(bind_unix(settings.uds))
        if shared and settings.source("address") == settings.source("port") == DEFAULT:
            return [shared] * settings.workers
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


def take_given(environment: MutableMapping[str, str]) -> list[int]:
    """The descriptors that systemd hands to this process; their variables go, for children would believe them."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    environment.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()):  # another process's, which has started us
        return []
    if not (count.isascii() and count.isdigit() and len(count) < 5 and int(count) <= MOST_INHERITED):
        raise BindError(f"LISTEN_FDS must be a whole number from 0 to {MOST_INHERITED}, not {count!r}")
    return list(range(FIRST_FD, FIRST_FD + int(count)))


def keep_from_children(fd: int) -> None:
    """Nothing to do for one that is not open."""
    try:
        os.set_inheritable(fd, False)
    except OSError:
        pass


def inherit(fd: int) -> Listener:
    """The socket that this process was started with. It stays its maker's: neither its file nor its port is removed."""
    try:
        socket = _socket.socket(fileno=fd)  # family and type are the socket's own
    except OSError as error:
        import errno

        what = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise BindError(f"descriptor {fd} {what}: there is nothing to listen on") from None
    wrong = what_is_wrong(socket)
    if wrong:
        socket.detach()  # not ours to close
        raise BindError(f"descriptor {fd} {wrong}")
    try:
        return Listener(socket, url_of(socket))
    except OSError as error:
        socket.detach()
        raise BindError(f"cannot listen on descriptor {fd}: {error.strerror}") from None


def listens(socket: _socket.socket) -> bool:
    """Whether it accepts connections. Where the system does not tell, a second `listen` does no harm."""
    try:
        return bool(socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN))
    except OSError:
        return False


def what_is_wrong(socket: _socket.socket) -> str:
    """Why nobody can be accepted on it, or nothing."""
    if socket.family not in (_socket.AF_INET, _socket.AF_INET6, _socket.AF_UNIX):
        return "is neither a TCP nor a unix socket"
    if socket.type != _socket.SOCK_STREAM:
        return "is not a stream socket (for systemd: ListenStream=)"
    if listens(socket):
        return ""
    try:
        socket.getpeername()
        return "is a connection, not a listening socket (for systemd: Accept=no)"
    except OSError:
        pass
    name = socket.getsockname()
    bound = name if socket.family == _socket.AF_UNIX else name[1]
    return "" if bound else "is a socket that is bound to no address"


def url_of(socket: _socket.socket) -> str:
    """As a person calls it."""
    name = socket.getsockname()
    if socket.family == _socket.AF_UNIX:
        # In no folder: Linux gives the name as bytes that begin with a zero.
        return "unix:" + (name if isinstance(name, str) else os.fsdecode(name).replace("\0", "@"))
    host = name[0].replace("%", "%25")  # RFC 6874: the zone of a link-local address
    return f"http://[{host}]:{name[1]}" if socket.family == _socket.AF_INET6 else f"http://{host}:{name[1]}"


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
