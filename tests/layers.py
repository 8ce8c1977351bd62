#!/usr/bin/env python3
"""Holds the source tree to its own rules by reading it.

1. A layer includes only itself and layers below it (docs/architecture.md).
2. kernel/ is included only by *_bare.* files (and by kernel/ itself).
3. No preprocessor branch on the platform anywhere: a platform is a set of files.
4. No file is longer than 700 lines, and every source file opens with a comment.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Lowest first. A layer may include those before it.
ORDER = ["common", "history", "kernel", "runtime", "blockdev", "net", "disk", "bufferpool", "wal", "btree", "engine", "server", "sim", "tools"]
# Layers beside each other, that must not include one another.
SIBLINGS = {("blockdev", "net"), ("net", "blockdev"), ("disk", "net"), ("bufferpool", "net"), ("wal", "net"),
            ("btree", "net"), ("engine", "net")}
# Not part of the product: stands on common/ alone, and only programs that test use it.
CHECKERS = {"history"}
CHECKER_USERS = {"sim"}
FREE = {"tests", "bench", "fuzz", "include"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
PLATFORM = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif)\b.*(KELDA_BARE|KELDA_HOSTED|KELDA_SIM|__linux__|__KELDA)")
MAX_LINES = 700


def sources():
    for folder in ORDER + sorted(FREE):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".h", ".cc", ".c", ".S"}:
                yield folder, path


def check_include(folder, path, target, problems, where):
    layer = target.split("/")[0]
    if target.startswith("kelda/"):
        layer = "include"
    if layer == "include":
        if folder in ORDER and ORDER.index(folder) < ORDER.index("engine"):
            problems.append(f"{where}: {folder}/ includes the public interface, which belongs to engine/")
        return
    if layer not in ORDER or folder in FREE:
        return
    if layer == "kernel" and folder != "kernel" and "_bare" not in path.name:
        problems.append(f"{where}: only *_bare.* files may include kernel/")
    if ORDER.index(layer) > ORDER.index(folder):
        problems.append(f"{where}: {folder}/ includes {layer}/, which is above it")
    if layer in CHECKERS and folder not in CHECKERS | CHECKER_USERS:
        problems.append(f"{where}: {folder}/ must not know {layer}/, which judges it")
    if (folder, layer) in SIBLINGS:
        problems.append(f"{where}: {folder}/ and {layer}/ must not know each other")


def check_file(folder, path, problems):
    text = path.read_text()
    name = path.relative_to(ROOT)
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        problems.append(f"{name}: {len(lines)} lines, more than {MAX_LINES}")
    # A .cc beside its header may leave the contract to it.
    has_header = path.suffix == ".cc" and path.with_suffix(".h").exists()
    if lines and not has_header and folder not in FREE and not lines[0].startswith(("//", "/*", "#include", "#")):
        problems.append(f"{name}: opens without a comment that says what it is for")
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        if match := INCLUDE.match(line):
            check_include(folder, path, match.group(1), problems, where)
        if PLATFORM.match(line):
            problems.append(f"{where}: branches on the platform; make it a *_hosted, *_bare or *_sim file")


def main():
    problems = []
    count = 0
    for folder, path in sources():
        count += 1
        check_file(folder, path, problems)
    for problem in problems:
        print(problem)
    print(f"{count} files read, {len(problems)} problems")
    return 1 if problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
