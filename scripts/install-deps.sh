#!/usr/bin/env bash
# Installs the Debian packages that building, testing and running need, and only what is missing.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config dpkg-dev
  liburing-dev libxxhash-dev libzstd-dev libboost-context-dev libfmt-dev libcli11-dev linux-libc-dev
  libgtest-dev
  qemu-system-x86 passt iproute2
  redis-tools redis-server python3-redis liblmdb-dev
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing: ${missing[*]}"
  apt-get update -qq
  # A policy that forbids starting services: the tests start their own servers on free ports.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
