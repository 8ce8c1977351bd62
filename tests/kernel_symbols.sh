#!/usr/bin/env bash
# kernel_symbols.sh LIBRARY: the kernel calls nothing of the C library that could be unrelocated at boot or use vector
# registers in interrupt context. What it may need from outside: itself, the linker's symbols, 128-bit division and the
# deallocation that an Error's unused message brings along.
set -euo pipefail
allowed='^(kelda_.*|_ZN.*5kelda.*|_GLOBAL_OFFSET_TABLE_|__ehdr_start|_end|__udivti3|__divti3|_ZdlPvm)$'
foreign=$(nm -u "$1" | awk '$1 == "U" { print $2 }' | sort -u | grep -vE "$allowed" || true)
if [ -n "$foreign" ]; then
  echo "the kernel calls what it must not:" $foreign
  exit 1
fi
