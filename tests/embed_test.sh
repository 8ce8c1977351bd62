#!/usr/bin/env bash
# embed_test.sh FOLDER: builds libkelda.a there, builds the examples and README's own program against it as README says, and runs
# them again and again on one disk.
set -euo pipefail
build=$1
source=$(cd "$(dirname "$0")/.." && pwd)
cmake -G Ninja -S "$source" -B "$build" -DKELDA_BARE=OFF -DKELDA_EMBED=ON -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" --target libkelda | tail -n 1
export PKG_CONFIG_PATH=$build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2046
g++ -Wall -Wextra -Werror "$source/examples/embed/bank.cc" $(pkg-config --cflags --libs kelda) -o "$work/bank"
# shellcheck disable=SC2046
gcc -Wall -Wextra -Werror -c "$source/examples/embed/counter.c" $(pkg-config --cflags kelda-c) -o "$work/counter.o"
# shellcheck disable=SC2046
g++ "$work/counter.o" $(pkg-config --libs kelda-c) -o "$work/counter"
# The indented lines of README's section, up to the program's end, as they stand there.
sed -n '/^## Embedding/,/^## [^E]/p' "$source/README.md" | grep '^    ' | sed '/make lib/,$d; s/^    //' >"$work/readme.cc"
grep -q 'int main' "$work/readme.cc"
# shellcheck disable=SC2046
g++ -Wall -Wextra -Werror "$work/readme.cc" $(pkg-config --cflags --libs kelda) -o "$work/readme"
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
expect $'refused: bob has only 60\nalice 40\nbob 60' ./bank bank.disk
expect $'refused: bob has only 90\nalice 10\nbob 90' ./bank bank.disk
expect $'refused: alice has only 10\nrefused: bob has only 90\nalice 10\nbob 90' ./bank bank.disk
expect 'run number 1' ./counter counter.disk
expect 'run number 2' ./counter counter.disk
expect '' ./readme
expect '' ./readme
