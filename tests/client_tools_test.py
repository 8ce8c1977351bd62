#!/usr/bin/env python3
"""redis-cli and redis-benchmark, as people run them, against a running server.

    client_tools_test.py hosted|vm|HOST:PORT|MEMORY_SERVER [unittest arguments]

Uses database 0 and empties it.
"""
import os
import pty
import select
import subprocess
import sys
import time
import unittest

from client_support import Connection, server_from_argument

SERVER = None


def cli(*args, text="", timeout=120):
    done = subprocess.run(["redis-cli", "-h", SERVER.host, "-p", str(SERVER.port), *args], input=text, capture_output=True,
                          text=True, timeout=timeout)
    return done.stdout.strip(), done


class RedisCli(unittest.TestCase):
    def setUp(self):
        self.assertEqual(cli("FLUSHALL")[0], "OK")

    def test_one_command(self):
        self.assertEqual(cli("SET", "a", "hello world")[0], "OK")
        self.assertEqual(cli("GET", "a")[0], "hello world")
        self.assertEqual(cli("-3", "GET", "a")[0], "hello world")
        self.assertEqual(cli("-n", "5", "DBSIZE")[0], "0")
        self.assertIn("unknown command 'NOPE'", cli("NOPE")[0])

    def test_commands_from_a_pipe(self):
        text = "".join(f"SET k{i} 'v {i}'\n" for i in range(200)) + "DBSIZE\n"
        self.assertEqual(cli(text=text)[0].splitlines()[-1], "200")

    def test_mass_insertion(self):
        count = 20_000
        data = b"".join(Connection.encode("SET", f"key:{i:06}", "x" * (i % 300)) for i in range(count))
        done = subprocess.run(["redis-cli", "-h", SERVER.host, "-p", str(SERVER.port), "--pipe"], input=data, capture_output=True,
                              timeout=120)
        self.assertIn(f"errors: 0, replies: {count}", done.stdout.decode())
        self.assertEqual(cli("DBSIZE")[0], str(count))
        self.assertEqual(len(cli("--scan", "--pattern", "key:0001*")[0].splitlines()), 100)
        self.assertEqual(cli("STRLEN", "key:000299")[0], "299")
        keys = cli("--scan")[0].splitlines()
        self.assertEqual((len(keys), len(set(keys))), (count, count))

    def test_surveys(self):
        cli(text="".join(f"SET k{i} {'v' * i}\n" for i in range(100)))
        self.assertIn("Biggest string found '\"k99\"' has 99 bytes", cli("--bigkeys")[0])
        self.assertIn("Biggest string found '\"k99\"'", cli("--memkeys")[0])

    def test_interactive(self):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "dumb"
            os.execvp("redis-cli", ["redis-cli", "-h", SERVER.host, "-p", str(SERVER.port)])
        try:
            os.write(terminal, b"set fruit apple\nget fruit\nhelp kelda.range\n")
            seen, deadline = "", time.time() + 20
            while ("apple" not in seen.split("get fruit")[-1] or "LIMIT count" not in seen) and time.time() < deadline:
                if select.select([terminal], [], [], 0.1)[0]:
                    seen += os.read(terminal, 65536).decode(errors="replace")
            self.assertIn("OK", seen)
            self.assertIn("apple", seen.split("get fruit")[-1])
            self.assertIn("LIMIT count", seen)
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)


class RedisBenchmark(unittest.TestCase):
    def run_benchmark(self, *args):
        done = subprocess.run(["redis-benchmark", "-h", SERVER.host, "-p", str(SERVER.port), "--csv", *args], capture_output=True,
                              text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("Error", done.stdout + done.stderr)
        rows = [line.split(",") for line in done.stdout.splitlines() if line.startswith('"')]
        return {row[0].strip('"'): float(row[1].strip('"')) for row in rows if row[1].strip('"')[:1].isdigit()}

    def test_its_strings(self):
        rates = self.run_benchmark("-t", "ping,set,get,incr,mset", "-n", "2000", "-c", "50")
        self.assertEqual(len(rates), 6)
        self.assertEqual(len(self.run_benchmark("-t", "set,get", "-n", "4000", "-c", "50", "-P", "16", "-r", "1000", "-d", "100")), 2)
        self.assertEqual(len(self.run_benchmark("-t", "get", "-n", "500", "-3")), 1)

    def test_a_thousand_connections(self):
        self.assertEqual(len(self.run_benchmark("-t", "set", "-n", "3000", "-c", "1000")), 1)


if __name__ == "__main__":
    with server_from_argument() as SERVER:
        result = unittest.main(exit=False).result
    sys.exit(0 if result.wasSuccessful() else 1)
