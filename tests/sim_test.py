#!/usr/bin/env python3
"""kelda sim as a user runs it: determinism over processes, exit codes, reproduction of a failure, and seeds.

sim_test.py determinism | reports | smoke | soak
"""
import json
import os
import subprocess
import sys
import unittest

KELDA = os.environ["KELDA"]


def sim(*arguments, timeout=900):
    done = subprocess.run([KELDA, "sim", *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
    if done.returncode not in (0, 1):
        raise AssertionError(f"exit code {done.returncode}: {done.stderr}")
    return done.returncode, json.loads(done.stdout)


def explain(report):
    return "\n".join(f"{f['kind']}: {f['what']}\n{f['reproduce']}\n{f['smallest']}" for f in report["failures"])


class Determinism(unittest.TestCase):
    def test_two_processes_have_the_same_history(self):
        for seed in ("5", "21", "33"):
            runs = [sim("--seed", seed, "--seconds-of-virtual-time", "2")[1] for _ in range(2)]
            self.assertEqual(runs[0]["trace_hash"], runs[1]["trace_hash"], seed)
            self.assertEqual(runs[0]["operations"], runs[1]["operations"], seed)


class Reports(unittest.TestCase):
    def test_a_failure_is_reported_and_its_reproduction_fails_too(self):
        code, report = sim("--seeds", "1..2", "--no-swarm", "--faults", "crash,lying-flush,cut", "--seconds-of-virtual-time", "3")
        self.assertEqual(code, 1)
        failure = report["failures"][0]
        self.assertGreater(len(failure["trace"]), 10)
        self.assertIn("acknowledged", failure["what"])
        words = failure["smallest"].split()
        self.assertEqual(words[:2], ["kelda", "sim"])
        again, small = sim(*words[2:])
        self.assertEqual(again, 1)
        self.assertEqual(small["failures"][0]["kind"], failure["kind"])

    def test_wrong_arguments(self):
        for wrong in (["--faults", "gremlins"], ["--seeds", "5..1"], ["--seeds", "x"], ["--seed", "1", "--seeds", "1..2"]):
            done = subprocess.run([KELDA, "sim", *wrong], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 2, wrong)
            self.assertNotEqual(done.stderr, "", wrong)


# Histories that once showed a mistake, of Kelda's or of the judges'.
FOUND = (103327, 201047, 203939, 205215, 212700, 218408, 222913)


class Smoke(unittest.TestCase):
    def test_seeds_that_once_failed(self):
        for seed in FOUND:
            code, report = sim("--seed", str(seed), timeout=280)
            self.assertEqual(code, 0, explain(report))

    def test_seeds(self):
        code, report = sim("--seeds", "1..60", "--jobs", "2", timeout=280)
        self.assertEqual(code, 0, explain(report))
        self.assertEqual(report["seeds"], 60)
        self.assertGreater(report["starts"], 200)
        self.assertGreater(report["faults"], 500)


class Soak(unittest.TestCase):
    def test_seeds(self):
        jobs = str(os.cpu_count() or 1)
        code, report = sim("--seeds", "1000..11000", "--jobs", jobs, timeout=14000)
        self.assertEqual(code, 0, explain(report))
        self.assertEqual(report["seeds"], 10001)


if __name__ == "__main__":
    chosen = {"determinism": Determinism, "reports": Reports, "smoke": Smoke, "soak": Soak}[sys.argv[1]]
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(chosen)
    sys.exit(0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1)
