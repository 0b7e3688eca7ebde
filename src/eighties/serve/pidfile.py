"""Pid file: where a running parent says who it is, and how `80s reload` finds it.

The parent holds a lock on the file for as long as it lives, so that the number in a file that was left over is never
taken for a server: it may be any process's by now.
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal


class PidFileError(Exception):
    """The file cannot be had, or no server holds it; the message says which."""


class PidFile:
    """Make the file and hold it. Raises PidFileError."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        try:
            self._take(path)
            while not self._is_there():  # a server that has just ended has removed it meanwhile
                os.close(self.fd)
                self._take(path)
            os.ftruncate(self.fd, 0)
            os.write(self.fd, b"%d\n" % os.getpid())
        except OSError as error:
            raise PidFileError(f"cannot write the pid file {path}: {error.strerror}") from None

    def _take(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _lock(self.fd):
            os.close(self.fd)
            raise PidFileError(f"another server runs, and holds the pid file {path}")

    def _is_there(self) -> bool:
        """Whether the file that is held is the one that others find."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    @classmethod
    def resume(cls, path: str, fd: int) -> PidFile:
        """The one that this process held before it was replaced."""
        held = cls.__new__(cls)
        held.path = os.path.abspath(path)
        held.fd = fd
        os.set_inheritable(fd, False)
        return held

    def close(self) -> None:
        """Remove it, and let go."""
        try:
            if self._is_there():
                os.unlink(self.path)
        except OSError:
            pass
        os.close(self.fd)


def tell(path: str, number: int = signal.SIGHUP) -> int:
    """Send a signal to the parent that holds the file, and return its process id. Raises PidFileError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise PidFileError(f"cannot read the pid file {path}: {error.strerror}") from None
    try:
        if _lock(fd):
            raise PidFileError(f"no server holds the pid file {path}")
        pid = int(os.read(fd, 32) or b"0")
        if pid <= 1:
            raise PidFileError(f"there is no process id in {path}")
        os.kill(pid, number)
    except ValueError:
        raise PidFileError(f"there is no process id in {path}") from None
    except OSError as error:
        raise PidFileError(f"cannot tell process {pid}: {error.strerror}") from None
    finally:
        os.close(fd)
    return pid


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
