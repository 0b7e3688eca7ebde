"""nginx, which static files are held against: one worker, its own configuration, folder and port."""

import os
import shutil
import subprocess
from pathlib import Path

from toolbox import UnavailableError

USUAL = "/usr/sbin/nginx"  # not on every user's PATH
FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
CACHE = "open_file_cache max=1000 inactive=60s; open_file_cache_valid 1s;"
"""Files stay open and are looked at once a second, as 80s looks at those it answers from memory."""

CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    {cache}
    {temporary}
    types {{ text/html html; text/css css; image/jpeg jpg; }}
    charset utf-8;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def find() -> str:
    """The program. Raises UnavailableError."""
    found = shutil.which("nginx") or (USUAL if os.access(USUAL, os.X_OK) else None)
    if found is None:
        raise UnavailableError("nginx is not installed (Debian: nginx-light)")
    return found


def version() -> str:
    said = subprocess.run([find(), "-v"], capture_output=True, text=True).stderr
    return said.strip().rpartition("/")[2]


def configure(folder: Path, root: Path, port: int, cache: bool) -> tuple[str, ...]:
    """Writes the configuration, and gives the command.

    Arguments:
        folder: an empty one for what nginx writes.
        root: the files to be served.
        cache: whether it keeps them open.
    """
    text = CONFIGURATION.format(
        folder=folder,
        root=root,
        port=port,
        user="user root;" if os.geteuid() == 0 else "",  # else its worker could not look into our folders
        cache=CACHE if cache else "",
        temporary=" ".join(f"{name}_temp_path {folder}/{name};" for name in FOLDERS),
    )
    (folder / "nginx.conf").write_text(text)
    return (find(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr")
