#!/bin/sh
# need.sh TASK...: make sure that what the machine itself must bring for a task is there.
# What is missing is installed with apt-get when this is root on a Debian; else one message says what to install.
set -u
here=$(dirname "$0")
missing=""

have() { command -v "$1" >/dev/null 2>&1; }
want() { missing="$missing $*"; }

need_build() {
    have gcc || want gcc
    # A gcc without the C library's headers compiles nothing.
    have gcc && ! echo '#include <stdio.h>' | gcc -fsyntax-only -xc - 2>/dev/null && want libc6-dev
    "$here/find-python.sh" >/dev/null || want python3 python3-venv python3-dev
}

need_test() {
    have curl || want curl
    have chromium || want chromium
    need_mariadb
}

# The tests and the bench start a server of their own.
need_mariadb() {
    have mariadbd || [ -x /usr/sbin/mariadbd ] || want mariadb-server-core
}

need_fuzz() {
    have clang || want clang
    runtime=$(clang -print-resource-dir 2>/dev/null)/lib/linux
    ls "$runtime"/libclang_rt.fuzzer-*.a >/dev/null 2>&1 || want libclang-rt-14-dev
}

need_bench() {
    have wrk || want wrk
    have go || want golang-go
    have nginx || [ -x /usr/sbin/nginx ] || want nginx-light
    need_mariadb
}

for task in "$@"; do
    "need_$task" || :
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && have apt-get; then
    export DEBIAN_FRONTEND=noninteractive
    echo "installing$missing"
    # shellcheck disable=SC2086
    {
        apt-get install -y -qq --no-install-recommends $missing ||
            { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; }
    } >/dev/null && exit 0
fi
echo "Missing on this machine:$missing" >&2
echo "On Debian install with: sudo apt-get install$missing" >&2
exit 1
