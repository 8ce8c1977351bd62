#!/usr/bin/env bash
# Builds all suites of one preset and runs them as processes, one after the other: scripts/sanitize.sh asan|tsan|debug
# Prints a line a suite, and what a failed one said; the last line is `N passed, M failed`. Exit code 0: none failed.
set -euo pipefail
preset=${1:-}
case $preset in
  asan|tsan|debug) ;;
  *) echo "usage: $0 asan|tsan|debug" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
suites=(runtime blockdev drivers net disk bufferpool wal btree engine server history isolation selftest sim)
if [ "$preset" = debug ]; then suites+=(kernel); fi
cmake --preset "$preset" > /dev/null
cmake --build --preset "$preset" --target "${suites[@]/%/_test}"

# Tests ask for more memory than there is, which must fail as it does without a sanitizer.
common=allocator_may_return_null=1
export ASAN_OPTIONS=$common:detect_stack_use_after_return=0:${ASAN_OPTIONS:-} UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-}
export TSAN_OPTIONS=$common:halt_on_error=1:second_deadlock_stack=1:${TSAN_OPTIONS:-}
said=$(mktemp)
trap 'rm -f "$said"' EXIT
passed=0 failed=0
for suite in "${suites[@]}"; do
  start=$SECONDS
  if timeout 900 "build-$preset/tests/${suite}_test" --gtest_brief=1 > "$said" 2>&1; then
    passed=$((passed + 1))
    echo "ok      $suite ($((SECONDS - start)) s)"
  else
    [ $? = 124 ] && why=" (did not end within 900 s)" || why=
    failed=$((failed + 1))
    echo "FAILED  $suite$why"
    tail -n 100 "$said"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
