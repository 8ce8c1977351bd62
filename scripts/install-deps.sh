#!/usr/bin/env bash
# Installs the Debian packages that building, testing and running need, and only what is missing. With the word "fuzz",
# also those of scripts/fuzz.sh; with the word "coverage", those of scripts/coverage.sh.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config dpkg-dev
  liburing-dev libxxhash-dev libzstd-dev libboost-context-dev libfmt-dev libcli11-dev linux-libc-dev
  libgtest-dev
  qemu-system-x86 passt iproute2
  redis-tools redis-server python3-redis liblmdb-dev
)
[ "${1:-}" != fuzz ] || packages+=(clang-19 libclang-rt-19-dev llvm-19)
[ "${1:-}" != coverage ] || packages+=(gcovr)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "missing packages; as root: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
echo "installing: ${missing[*]}"

# No service of theirs may start, now or at the next boot: the tests start their own servers on free ports, and a
# redis-server would take the port that `make run` serves on.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
case " ${missing[*]} " in
  *" redis-server "*) if command -v systemctl >/dev/null; then systemctl --quiet disable redis-server 2>/dev/null || true; fi ;;
esac
