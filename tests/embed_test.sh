#!/usr/bin/env bash
# embed_test.sh FOLDER: builds libkelda.a there, builds the examples against it as README says, and runs them twice.
set -euo pipefail
build=$1
source=$(cd "$(dirname "$0")/.." && pwd)
cmake -G Ninja -S "$source" -B "$build" -DKELDA_BARE=OFF -DKELDA_EMBED=ON -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" --target libkelda | tail -n 1
export PKG_CONFIG_PATH=$build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2046
g++ -std=gnu++23 "$source/examples/embed/bank.cc" $(pkg-config --cflags --libs kelda) -o "$work/bank"
# shellcheck disable=SC2046
gcc -Wall -Wextra -Werror -c "$source/examples/embed/counter.c" $(pkg-config --cflags kelda) -o "$work/counter.o"
# shellcheck disable=SC2046
g++ "$work/counter.o" $(pkg-config --libs kelda) -o "$work/counter"
cd "$work"
expect() { # expect TEXT COMMAND...
  local text=$1 got
  shift
  got=$("$@")
  if [ "$got" != "$text" ]; then
    printf 'expected:\n%s\ngot:\n%s\n' "$text" "$got"
    exit 1
  fi
}
expect $'refused: bob has only 30\nalice 70\nbob 30' ./bank bank.disk
expect $'refused: bob has only 60\nalice 70\nbob 60' ./bank bank.disk
expect 'run number 1' ./counter counter.disk
expect 'run number 2' ./counter counter.disk
