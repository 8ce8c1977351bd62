#!/usr/bin/env python3
"""Which error branches never ran: compares what gcov counted with the reasons in docs/coverage.md.

    error_branches.py [BUILD]    # BUILD: the folder of the preset `coverage`, after the tests ran; see scripts/coverage.sh

An error branch is a statement of wal/, bufferpool/, blockdev/ or engine/ that
  - makes an error or passes one on: Error(...), a returned Code, .error(), TRY(...), a function that returns an Error;
  - tells of one: fail(...), problem(...), area_found(...), lose(...), skip(...);
  - or asks for one: `if (!result)`, `.failed_with(...)`.
It ran if every basic block of its lines ran, those apart that only an exception leads to: of `if (!x) return Error(...);` the
condition and the return, of TRY(...) the call and the return of its error. Of an `if` with a block of its own the first line in
the block must have run. In a header one copy that ran will do.

Exits with 1 if an error branch that did not run has no reason, or a reason stands there for one that ran or is gone.
"""
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ["wal", "bufferpool", "blockdev", "engine"]
REASONS = ROOT / "docs" / "coverage.md"

LITERAL_OR_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'", re.S)
RETURNS_ERROR = re.compile(r"\bError (?:\w+::)*(\w+)\(")
RESULT_NAME = re.compile(r"\bResult<[^;={()]*> (\w+)\b(?!\()|\b(\w+)(?:\)|\[\w+\])?\.(?:error\(\)|failed_with\()")
DECLARATION = re.compile(r"^\s*(?:static |virtual |explicit |\[\[nodiscard\]\] )*(?:Error|void|bool|Result<.*?>) (?:\w+::)*\w+\([^;]*\)[^;()]*[{;]\s*$"
                         r"|^\s*(?:Error|Result<.*?>) \w+(?: = .*\{\})?;")
TELLS = {"fail", "problem", "area_found", "lose", "skip"}

Branch = collections.namedtuple("Branch", "file line text lines")
Instance = collections.namedtuple("Instance", "function ran")


def blanked(text):
    """The text with comments and literals blank, each line where it was."""
    return LITERAL_OR_COMMENT.sub(lambda m: re.sub(r"[^\n\"]", " ", m[0]), text)


def sources():
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).iterdir()) if path.suffix in {".cc", ".h"}]


def error_branches(path, code, error_functions):
    names = {a or b for a, b in RESULT_NAME.findall(code)} - {"std"}
    marks = re.compile(
        r"\bTRY\(|\bError\(|\.error\(\)|\breturn (?:kelda::)?Code::|\bResult<[^;]*>\((?:kelda::)?Code::|\.failed_with\(|"
        r"\bcase (?:kelda::)?Code::|\breturn \*?[\w.>-]*failure_?;|(?<![.\w])(?:" + "|".join(sorted(error_functions | TELLS)) + r")\(" +
        (r"|\b(?:if|while) \(.*!(?:" + "|".join(sorted(names)) + r")\b(?![.(\[])" if names else ""))
    lines = code.split("\n")
    shown = path.read_text().split("\n")
    for at, line in enumerate(lines):
        if not marks.search(line) or DECLARATION.match(line) or "KELDA_ASSERT" in line or line.startswith("#"):
            continue
        end = at
        while not lines[end].rstrip().endswith((";", "{", "}", ":")):
            end += 1
        opens_block = re.match(r"\s*(?:\} else )?(?:if|while) \(", line) and lines[end].rstrip().endswith("{")
        judged = [end + 1, None] if opens_block else [at, end]
        yield Branch(str(path.relative_to(ROOT)), at, shown[at].strip(), judged)


def without_brackets(name, opening, closing):
    kept, depth = "", 0
    for c in name:
        depth += c == opening
        if depth == 0:
            kept += c
        depth -= c == closing
    return kept


def short_name(demangled):
    """kelda::wal::Log::append(...) const -> Log::append; a lambda's is that of the function around it."""
    name = demangled.replace("(anonymous namespace)::", "").replace("operator()", "call")
    name = without_brackets(name, "<", ">").split("(")[0].split(" ")[-1]
    return re.sub(r"^kelda::(?:(?:wal|bufferpool|blockdev|engine)::)?", "", name)


def count(build):
    """{file: {line: {function without its template arguments: [Instance]}}}"""
    notes = sorted(str(p) for p in build.rglob("*.gcno"))
    counted = collections.defaultdict(lambda: collections.defaultdict(lambda: collections.defaultdict(list)))

    def run(some):
        return subprocess.run(["gcov", "--json-format", "--stdout", *some], cwd=build, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for said in pool.map(run, [notes[i:i + 8] for i in range(0, len(notes), 8)]):
            for unit in said.splitlines():
                for file in json.loads(unit)["files"]:
                    path = pathlib.Path(os.path.normpath(build / file["file"]))
                    if path.parent.parent != ROOT or path.parent.name not in FOLDERS:
                        continue
                    names = {f["name"]: f["demangled_name"] for f in file["functions"]}
                    for line in file["lines"]:
                        function = names.get(line.get("function_name"), "")
                        group = without_brackets(function, "<", ">")
                        ran = line["count"] > 0 and not line["unexecuted_block"]
                        counted[str(path.relative_to(ROOT))][line["line_number"] - 1][group].append(Instance(function, (line["count"] > 0, ran)))
    return counted


def judge(branch, lines):
    """(ran, function), or None where the compiler made nothing of it."""
    first, last = branch.lines
    if last is None:  # the first line of a block
        first = last = next((n for n in range(first, first + 40) if n in lines), first)
        wanted = 0
    else:
        wanted = 1
    there = [lines[n] for n in range(first, last + 1) if n in lines]
    if not there:
        return None
    ran = all(any(i.ran[wanted] for i in instances) for groups in there for instances in groups.values())
    return ran, short_name(next(iter(there[0].values()))[0].function)


def reasons():
    """{(file, function, text): at_times}, {files that are not compiled}"""
    listed, absent = {}, set()
    for line in REASONS.read_text().split("\n"):
        if m := re.match(r"- `(\S+)`, `([^`]+)`: `(.*)`( \(at times\))?$", line):
            listed[m[1], m[2], m[3]] = m[4] is not None
        elif m := re.match(r"- `(\S+)`$", line):
            absent.add(m[1])
    return listed, absent


def main():
    build = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build-coverage").resolve()
    code = {path: blanked(path.read_text()) for path in sources()}
    error_functions = {name for text in code.values() for name in RETURNS_ERROR.findall(text)}
    counted = count(build)
    listed, absent = reasons()
    total, ran = collections.Counter(), collections.Counter()
    not_run, not_compiled, seen_ran = collections.OrderedDict(), collections.OrderedDict(), set()
    for path, text in code.items():
        for branch in error_branches(path, text, error_functions):
            folder = branch.file.split("/")[0]
            if branch.file not in counted:
                if branch.file.endswith(".cc"):
                    not_compiled[branch.file] = not_compiled.get(branch.file, 0) + 1
                continue
            judged = judge(branch, counted[branch.file])
            if judged is None:
                continue
            total[folder] += 1
            key = (branch.file, judged[1], branch.text)
            if judged[0]:
                ran[folder] += 1
                seen_ran.add(key)
            else:
                not_run.setdefault(key, []).append(branch.line + 1)

    print("| folder | error branches | ran | did not run |\n|---|---|---|---|")
    for folder in FOLDERS:
        print(f"| {folder} | {total[folder]} | {ran[folder]} | {total[folder] - ran[folder]} |")
    print(f"| all | {total.total()} | {ran.total()} | {total.total() - ran.total()} |")
    print("not compiled here: " + ", ".join(f"{file} ({n})" for file, n in not_compiled.items()))

    wrong = False
    for key, lines in not_run.items():
        if key not in listed:
            wrong = True
            print(f"{key[0]}:{lines[0]}: never ran and has no reason:\n- `{key[0]}`, `{key[1]}`: `{key[2]}`")
    for key, at_times in listed.items():
        if key not in not_run and not (at_times and key in seen_ran):
            wrong = True
            print(f"docs/coverage.md: {'it runs now' if key in seen_ran else 'there is no such error branch'}: {key[0]}, {key[1]}: {key[2]}")
    for file in sorted(set(not_compiled) ^ absent):
        wrong = True
        print(f"docs/coverage.md: {file} is {'not compiled, and not listed' if file in not_compiled else 'compiled or gone'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
