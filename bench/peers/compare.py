#!/usr/bin/env python3
"""compare.py [kv] [redis] [options]: Kelda beside others on this machine, in the same run, alternately.

kv     `kelda bench kv` (point reads, one thread, in memory) beside LMDB (build/bench/lmdb_read) on the same keys and values.
redis  redis-benchmark against `kelda serve` and redis-server (appendonly yes, appendfsync always), -P 1 and -P 16.

A machine's speed changes from minute to minute, so what is compared is the ratio of two runs that followed each other:
printed are its minimum, median and maximum over the rounds. Every server gets a new, empty folder.
"""
import argparse
import csv
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
REDIS_TESTS = ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"]


def run(command, folder=None):
    env = dict(os.environ, TMPDIR=str(folder)) if folder else None
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    if done.returncode != 0:
        sys.exit(f"compare: {' '.join(map(str, command))} failed with {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


def print_ratios(name, pairs):
    """pairs: (Kelda's operations/s, the peer's)."""
    ratios = [ours / theirs for ours, theirs in pairs]
    ours, theirs = (statistics.median(side) for side in zip(*pairs))
    print(f"{name:<24} {ours:>12.0f} {theirs:>12.0f}   {min(ratios):>6.2f} {statistics.median(ratios):>6.2f} {max(ratios):>6.2f}",
          flush=True)


def print_header(peer):
    print(f"{'operations/s, medians':<24} {'kelda':>12} {peer:>12}   ratio min median max", flush=True)


def alternate(rounds, ours, theirs):
    """Results of both sides by rounds; who goes first changes, so that neither always meets a warmer machine."""
    pairs = []
    for i in range(rounds):
        if i % 2 == 0:
            a, b = ours(), theirs()
        else:
            b, a = theirs(), ours()
        pairs.append((a, b))
    return pairs


def compare_kv(options, folder):
    def kelda():
        disk = folder / "kv.disk"
        out = run([options.build / "kelda", "bench", "kv", "--disk", disk, "--create", options.disk_size, "--memory", options.memory,
                   "--records", str(options.records), "--value-bytes", str(options.value_bytes), "--threads", "1", "--read-percent",
                   "100", "--theta", "0", "--durability", "none", "--seconds", str(options.seconds), "--json"])
        disk.unlink()
        return json.loads(out.splitlines()[-1])["operations_per_s"]

    def lmdb(transaction_reads):
        out = run([options.build / "bench" / "lmdb_read", str(options.records), str(options.value_bytes), str(options.seconds),
                   str(transaction_reads)], folder)
        return json.loads(out.splitlines()[-1])["operations_per_s"]

    print(f"\npoint reads: {options.records} records, 16-byte keys, {options.value_bytes}-byte values, uniform, 1 thread, "
          f"{options.rounds} rounds of {options.seconds} s")
    print_header("lmdb")
    print_ratios("a transaction a read", alternate(options.rounds, kelda, lambda: lmdb(1)))
    print_ratios("one for all (lmdb)", alternate(options.rounds, kelda, lambda: lmdb(0)))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process on a free port, ready to serve when the constructor returns."""

    def __init__(self, command, port, log_path):
        self.port = port
        self.log = open(log_path, "w")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        while subprocess.run(["redis-cli", "-p", str(port), "ping"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True).stdout.strip() != "PONG":
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                sys.exit(f"compare: {command[0]} did not get ready:\n{pathlib.Path(log_path).read_text()}")
            time.sleep(0.1)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def redis_rates(port, options, pipeline):
    # Longer pipelines finish sooner: about the same time for both.
    requests = options.requests * (4 if pipeline > 1 else 1)
    out = run(["redis-benchmark", "-p", str(port), "-t", "ping,set,get,incr,mset", "-c", str(options.clients), "-n", str(requests),
               "-P", str(pipeline), "-r", str(options.keys), "-d", str(options.value_bytes), "--csv"])
    rates = {}
    for row in csv.reader(out.splitlines()):
        if len(row) >= 2 and row[0] != "test":
            rates[row[0]] = float(row[1])
    missing = [test for test in REDIS_TESTS if test not in rates]
    if missing:
        sys.exit(f"compare: redis-benchmark did not report {missing}:\n{out}")
    return rates


def write_disk(path, size):
    """A disk all of whose blocks the file system has allocated and seen written: as after some time of use."""
    left = int(size[:-1]) << {"M": 20, "G": 30}[size[-1]]
    zeroes = bytes(1 << 20)
    with open(path, "wb") as disk:
        for _ in range(left >> 20):
            disk.write(zeroes)
        os.fsync(disk.fileno())


def compare_redis(options, folder):
    kelda_port, redis_port = free_port(), free_port()
    (folder / "redis").mkdir()
    if options.written_disk:
        write_disk(folder / "serve.disk", options.disk_size)
    servers = []
    try:
        servers.append(Server([options.build / "kelda", "serve", "--disk", folder / "serve.disk", "--create", options.disk_size, "--memory",
                               options.memory, "--cores", str(options.cores), "--resp", f"127.0.0.1:{kelda_port}"],
                              kelda_port, folder / "kelda.log"))
        servers.append(Server(["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", folder / "redis", "--appendonly",
                               "yes", "--appendfsync", "always", "--save", ""], redis_port, folder / "redis.log"))
        for pipeline in (1, 16):
            pairs = alternate(options.rounds, lambda: redis_rates(kelda_port, options, pipeline),
                              lambda: redis_rates(redis_port, options, pipeline))
            print(f"\nredis-benchmark -c {options.clients} -P {pipeline} -r {options.keys} -d {options.value_bytes}, kelda serve --cores "
                  f"{options.cores} on a {'written' if options.written_disk else 'new, sparse'} disk, {options.rounds} rounds")
            print_header("redis-server")
            for test in REDIS_TESTS:
                print_ratios(test, [(ours[test], theirs[test]) for ours, theirs in pairs])
    finally:
        for server in servers:
            server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="kv, redis; both if none is named")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="build folder (default: %(default)s)")
    parser.add_argument("--folder", type=pathlib.Path, help="where both sides keep their files (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--records", type=int, default=1_000_000, help="kv (default: %(default)s)")
    parser.add_argument("--value-bytes", type=int, default=120, help="both (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2, help="kv: a run reads for so long (default: %(default)s)")
    parser.add_argument("--memory", default="1G", help="Kelda's bound (default: %(default)s)")
    parser.add_argument("--disk-size", default="4G", help="Kelda's disk, sparse (default: %(default)s)")
    parser.add_argument("--written-disk", action="store_true", help="redis: Kelda's disk is filled with zeroes first, not sparse")
    parser.add_argument("--cores", type=int, default=2, help="redis: kelda serve --cores (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=50, help="redis (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=20_000, help="redis, of each kind at -P 1 (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=100_000, help="redis, different ones (default: %(default)s)")
    options = parser.parse_args()
    comparisons = {"kv": compare_kv, "redis": compare_redis}
    if unknown := [name for name in options.what if name not in comparisons]:
        parser.error(f"unknown comparison: {unknown[0]}")
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if not re.fullmatch(r"[1-9]\d*[MG]", options.disk_size):
        parser.error("--disk-size: a number and M or G")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and files do not stay behind
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kelda-compare-", dir=options.folder))
    try:
        for name in options.what or comparisons:
            comparisons[name](options, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
