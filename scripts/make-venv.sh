#!/usr/bin/env bash
# Makes .venv with the packages that requirements.lock pins, and primacy itself, editable.
#
# Promises  Run again it changes nothing. Nothing without a hash is installed.
# Assumes   Python 3.11 or newer, with venv; on Debian as root the venv package is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    echo "primacy: $*" >&2
    exit 2
}

[ "$(uname -s)" = Linux ] || die "this needs Linux (CLOCK_BOOTTIME, pidfd and PR_SET_PDEATHSIG)."

is_fit() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

install_packages() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "missing: $*. On Debian: sudo apt-get install $*"
    fi
    echo "primacy: installing $* (apt)"
    DEBIAN_FRONTEND=noninteractive apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "$@" >/dev/null
}

python=""
for candidate in "${1:-python3}" python3 python3.13 python3.12 python3.11; do
    if is_fit "$candidate"; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || die "Python 3.11 or newer was not found. Say which: make PYTHON=/path/to/python3"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    install_packages "python$version-venv"
fi

# A half-made environment (an interrupted run, another machine's Python) is made anew.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    "$python" -m venv .venv
fi
.venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
