#!/usr/bin/env bash
# Sees to it that MariaDB's programs are here: its server, its client tools and mariadb-backup; and
# those that the arguments name (haproxy, systemd, default-jre-headless: for the tests). As root
# also ip and nft, with which the demo and the tests cut networks.
#
# Promises  No system service is started or left running: a temporary policy-rc.d forbids it, and
#           whatever stood there before is put back. Does nothing where nothing is missing.
# Assumes   Debian and root to install; otherwise it says what is missing, and exits with 2.
set -euo pipefail

die() {
    echo "primacy: $*" >&2
    exit 2
}

[ "$(uname -s)" = Linux ] || die "this needs Linux (CLOCK_BOOTTIME, pidfd and PR_SET_PDEATHSIG)."

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
missing=()
command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null &&
    command -v mariadb-binlog >/dev/null || missing+=(mariadb-server)
command -v mariadb-backup >/dev/null || missing+=(mariadb-backup)
for package in "$@"; do # Of the tests alone: named by whoever needs them, as their program is.
    case "$package" in
        default-jre-headless) program=java ;;
        systemd) program=systemd-analyze ;; # It checks units, whatever runs as process 1.
        *) program="$package" ;;
    esac
    command -v "$program" >/dev/null || missing+=("$package")
done
if [ "$(id -u)" = 0 ]; then # Only root can make the network namespaces that they are for.
    command -v ip >/dev/null || missing+=(iproute2)
    command -v nft >/dev/null || missing+=(nftables)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    die "missing: ${missing[*]}. Install what they hold with your system's package tool (MariaDB 10.11 or newer)."
fi
if [ "$(id -u)" != 0 ]; then
    die "missing packages: ${missing[*]}. Run as root, or: sudo apt-get install --no-install-recommends ${missing[*]}"
fi

policy=/usr/sbin/policy-rc.d
kept=""
restore() {
    rm -f "$policy"
    if [ -n "$kept" ]; then mv "$kept" "$policy"; fi
}
if [ -e "$policy" ] || [ -L "$policy" ]; then
    kept="$policy.primacy-kept"
    mv "$policy" "$kept"
fi
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

echo "primacy: installing ${missing[*]} (apt), without starting a service"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --no-install-recommends -y "${missing[@]}" >/dev/null

# A package enables its own service for the next boot; primacy starts its servers itself.
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
    for package in "${missing[@]}"; do
        case $package in
            mariadb-server) systemctl disable --quiet mariadb.service || true ;;
            haproxy) systemctl disable --quiet haproxy.service || true ;;
        esac
    done
fi
