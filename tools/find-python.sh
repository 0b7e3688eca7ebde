#!/bin/sh
# Print the newest Python from 3.11 to 3.14 that can build and run the project, or nothing and fail.
# One that is found but cannot be used is passed over: a shim of pyenv with no version behind it, an interpreter
# without venv or ensurepip, or without the headers that a C extension is compiled against.
set -u

# usable PYTHON: it starts, is a CPython of the right age with a GIL, and has what a virtual environment and a build need.
usable() {
    "$1" -c '
import ensurepip, os, sys, sysconfig, venv
ok = (
    sys.implementation.name == "cpython"
    and (3, 11) <= sys.version_info[:2] <= (3, 14)
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
    and os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
)
sys.exit(0 if ok else 1)
' >/dev/null 2>&1
}

# candidates NAME: every executable of that name on PATH, a line each.
candidates() {
    old_ifs=$IFS
    IFS=:
    for folder in $PATH; do
        [ -x "${folder:-.}/$1" ] && echo "${folder:-.}/$1"
    done
    IFS=$old_ifs
}

for version in 3.14 3.13 3.12 3.11; do
    for python in $(candidates "python$version") "${HOME:-}/.pyenv/versions/$version".*/bin/python; do
        if [ -x "$python" ] && usable "$python"; then
            echo "$python"
            exit 0
        fi
    done
done
for python in $(candidates python3); do
    if usable "$python"; then
        echo "$python"
        exit 0
    fi
done
exit 1
