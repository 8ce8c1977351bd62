#!/usr/bin/env bash
# fuzz.sh TARGET|all SECONDS: builds the fuzz targets with clang and runs one (or each in turn) under libFuzzer. New inputs
# are kept in build-fuzz/corpus/TARGET; an input that fails is written to build-fuzz/failures/TARGET and named: copy it to
# fuzz/regressions/TARGET, fix what it shows, and the ordinary tests keep it.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
cd "$(dirname "$0")/.."
scripts/install-deps.sh fuzz
[ -f build-fuzz/CMakeCache.txt ] || cmake --preset fuzz >/dev/null
if [ "$1" = all ]; then
  mapfile -t targets < <(find fuzz/corpus -mindepth 1 -maxdepth 1 -printf '%f\n' | sort)
else
  targets=("$1")
fi
# Builds of several tests of one CTest run wait for each other.
flock build-fuzz/CMakeCache.txt cmake --build build-fuzz --target "${targets[@]/#/fuzz_}" >/dev/null

for target in "${targets[@]}"; do
  kept=build-fuzz/corpus/$target failures=build-fuzz/failures/$target stored=()
  mkdir -p "$kept" "$failures"
  for folder in "fuzz/corpus/$target" "fuzz/regressions/$target"; do [ -d "$folder" ] && stored+=("$folder"); done
  echo "fuzzing $target for $2 seconds"
  "build-fuzz/fuzz/fuzz_$target" -max_total_time="$2" -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$failures/" "$kept" "${stored[@]}"
done
