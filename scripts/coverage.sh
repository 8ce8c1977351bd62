#!/usr/bin/env bash
# Error branches that no test runs: builds the preset `coverage`, runs the suites and the program as a user meets it, as
# processes; prints gcovr's table of wal/, bufferpool/, blockdev/ and engine/, and what scripts/error_branches.py says.
# Exit code 0: all tests passed, and each error branch ran or has its reason in docs/coverage.md.
set -euo pipefail
cd "$(dirname "$0")/.."
suites=(runtime blockdev disk bufferpool wal btree engine isolation server selftest sim fuzz crash_every_io)
commands=(bad_input damage disk_full dump error_policy scrub selftest_command stop)
scripts/install-deps.sh coverage
cmake --preset coverage > /dev/null
cmake --build --preset coverage --target kelda "${suites[@]/%/_test}"
find build-coverage -name '*.gcda' -delete

said=$(mktemp)
trap 'rm -f "$said"' EXIT
failed=0
run() { # name, command ...
  local start=$SECONDS
  if timeout 900 "${@:2}" > "$said" 2>&1; then
    echo "ok      $1 ($((SECONDS - start)) s)"
  else
    failed=$((failed + 1))
    echo "FAILED  $1"
    tail -n 60 "$said"
  fi
}
for suite in "${suites[@]}"; do
  filter='*'
  [ "$suite" != crash_every_io ] || filter='Short/*'
  run "$suite" "$(find build-coverage -name "${suite}_test" -type f)" --gtest_brief=1 --gtest_filter="$filter"
done
export KELDA=$PWD/build-coverage/kelda
for command in "${commands[@]}"; do
  run "$command" /usr/bin/python3 "tests/${command}_test.py" hosted
done

gcovr --root . --object-directory build-coverage --branches --exclude-throw-branches --exclude-unreachable-branches \
  --filter wal/ --filter bufferpool/ --filter blockdev/ --filter engine/ --exclude-lines-by-pattern '.*KELDA_ASSERT.*' -j "$(nproc)"
scripts/error_branches.py || failed=$((failed + 1))
[ "$failed" = 0 ]
