#!/usr/bin/env python3
"""smoke.py hosted|vm PROGRAM: every benchmark of PROGRAM runs for a moment and reports a figure. Times are not judged."""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    where, program = sys.argv[1:]
    env = dict(os.environ, LC_ALL="C")
    listed = subprocess.run([program, "--benchmark_list_tests"], stdout=subprocess.PIPE, text=True, check=True, env=env)
    names = listed.stdout.split()
    command = [program] if where == "hosted" else [str(ROOT / "tests" / "boot.sh"), program]
    run = subprocess.run([*command, "--benchmark_min_time=0.001", "--benchmark_color=false"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env)
    print(run.stdout)
    reported = set(re.findall(r"^(\S+)\s+[\d.e+]+ ns\s+[\d.e+]+ ns\s+\d+", run.stdout, re.MULTILINE))
    missing = [name for name in names if name not in reported]
    print(f"{len(names)} benchmarks, {len(names) - len(missing)} reported, exit code {run.returncode}")
    for name in missing:
        print("missing:", name)
    return 1 if missing or not names or run.returncode != 0 else 0


sys.exit(main())
