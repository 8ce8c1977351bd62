#!/usr/bin/env python3
"""hostile.py [kinds] [options]: what a well-behaved client notices of hostile ones.

A bystander sets and gets a key, waits a millisecond, and so on: alone, beside hostile clients of each kind, and beside the same
hostile clients when they torment another process (the control: what is left is the machine's, not the server's). Printed
are its milliseconds, medians over the rounds of p50, p99 and the longest, and their ratios to the rounds alone.

The clients take CPU time that they would not take from another machine: with fewer --cores than CPUs, the clients keep to the
last CPU and the servers to the others; the bystander goes before other clients, if it may (root).

The same is done to each server named by --servers: `kelda` (the build), `redis` (redis-server, appendfsync always), or the path
of another kelda program, an older one for example. In each round all servers take their turns.
"""
import argparse
import json
import os
import pathlib
import resource
import selectors
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from compare import ROOT, Server, free_port

sys.path.insert(0, str(ROOT / "tests"))
from client_support import Connection  # noqa: E402

HOST = "127.0.0.1"
RESET = struct.pack("ii", 1, 0)
encode = Connection.encode


# ---- hostile clients: each goes on until it is ended

def pour(port, requests, connections=1):
    """Sends `requests` over and over as fast as they are taken, and reads what comes."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        s = socket.create_connection((HOST, port))
        s.setblocking(False)
        selector.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, [requests])
    while True:
        for key, events in selector.select():
            if events & selectors.EVENT_READ:
                key.fileobj.recv(1 << 20)
            if events & selectors.EVENT_WRITE:
                rest = key.data[0]
                sent = key.fileobj.send(rest)
                key.data[0] = rest[sent:] or requests


def short_pipeline(port):
    """A pipeline of cheap commands without end."""
    pour(port, memoryview(encode("ECHO", "123456") * 4000))


def pipelines(port):
    """Ten of them."""
    pour(port, memoryview(encode("ECHO", "123456") * 4000), connections=10)


def writes(port):
    """A pipeline of small writes without end."""
    pour(port, memoryview(b"".join(encode("SET", f"w{i}", b"x" * 100) for i in range(2000))))


def large_writes(port):
    """A pipeline of large writes without end."""
    pour(port, memoryview(encode("SET", "large", b"x" * 500_000) * 2))


def large_reads(port):
    """A pipeline of requests for large values."""
    with Connection(HOST, port) as c:
        c.ask("SET", "large", b"x" * 500_000)
    pour(port, memoryview(encode("GET", "large") * 100))


def wide(port):
    """Requests for thousands of keys each."""
    pour(port, memoryview(encode("MGET", *(f"none{i}" for i in range(5000))) * 2))


def storm(port):
    """Connections that are opened and left, some amid a request, some with a reset."""
    for i in range(1 << 60):
        with socket.socket() as s:
            # Many addresses: one alone runs out of ports.
            s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            s.bind((f"127.0.{i % 100}.{2 + i % 200}", 0))
            s.connect((HOST, port))
            if i % 2 == 0:
                s.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000\r\nhalf")
            if i % 3 == 0:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def bursts(port):
    """Five hundred connections opened together, then closed together."""
    while True:
        sockets = [socket.create_connection((HOST, port)) for _ in range(500)]
        for s in sockets:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            s.close()
        time.sleep(0.02)


def slow_writers(port):
    """Two hundred clients that send a byte at a time."""
    sockets = [socket.create_connection((HOST, port)) for _ in range(200)]
    request = encode("SET", "slow", b"x" * 1000)
    while True:
        for i in range(len(request)):
            for s in sockets:
                s.sendall(request[i:i + 1])
            time.sleep(0.02)


def slow_readers(port):
    """Clients that ask for much and read nothing."""
    with Connection(HOST, port) as c:
        c.ask("SET", "large", b"x" * 500_000)
    sockets = [socket.create_connection((HOST, port)) for _ in range(20)]
    for s in sockets:
        s.sendall(encode("GET", "large") * 50)
    time.sleep(3600)


def lists(port):
    """Two thousand idle clients, and one that asks for a list of them all the time."""
    idle = [socket.create_connection((HOST, port)) for _ in range(2000)]
    with Connection(HOST, port) as c:
        while c.ask("CLIENT", "LIST"):
            pass
    assert idle


KINDS = {f.__name__: f for f in (short_pipeline, pipelines, writes, large_writes, large_reads, wide, storm, bursts, slow_writers,
                                 slow_readers, lists)}


# ---- the bystander

def stand_by(port, seconds):
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pass
    value, taken = b"v" * 100, {"SET": [], "GET": []}
    with Connection(HOST, port, timeout=60) as c:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for request, reply in ((("SET", "mine", value), b"OK"), (("GET", "mine"), value)):
                begin = time.monotonic()
                if (answer := c.ask(*request)) != reply:
                    raise SystemExit(f"hostile: {request[0]} was answered {answer[:100]!r}")
                taken[request[0]].append((time.monotonic() - begin) * 1000)
            time.sleep(0.001)
    figures = {}
    for name, times in taken.items():
        times.sort()
        figures[name] = [times[len(times) // 2], times[int(.99 * (len(times) - 1))], times[-1]]
    print(json.dumps(figures))


# ---- the measuring

CPUS = sorted(os.sched_getaffinity(0))


def client(options, *arguments):
    pinned = [] if options.cores >= len(CPUS) else ["taskset", "-c", str(CPUS[-1])]
    return [*pinned, sys.executable, __file__, *map(str, arguments)]


class Attack:
    """Hostile clients in a process of their own, or nothing."""

    def __init__(self, kind, port, options):
        self.process = kind and subprocess.Popen(client(options, "attack", kind, port))

    def __enter__(self):
        time.sleep(0.3 if self.process else 0)

    def __exit__(self, *_):
        if not self.process:
            return
        if self.process.poll() is not None:
            raise SystemExit("hostile: the attack ended by itself")
        self.process.kill()
        self.process.wait()
        time.sleep(0.3)


def measure(port, kind, attacked_port, options):
    with Attack(kind, attacked_port, options):
        done = subprocess.run(client(options, "stand-by", port, options.seconds), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def start(name, number, options, folder):
    port, place = free_port(), folder / str(number)
    place.mkdir()
    if name == "redis":
        command = ["redis-server", "--port", str(port), "--bind", HOST, "--dir", place, "--appendonly", "yes", "--appendfsync", "always",
                   "--save", ""]
    else:
        program = ROOT / "build" / "kelda" if name == "kelda" else name
        command = [program, "serve", "--disk", place / "disk", "--create", "1G", "--memory", "512M", "--cores", str(options.cores),
                   "--resp", f"{HOST}:{port}"]
    if options.cores < len(CPUS):
        command = ["taskset", "-c", ",".join(map(str, CPUS[:-1])), *command]
    return Server(command, port, place / "log")


def median(runs, command, at):
    return statistics.median(run[command][at] for run in runs)


def report(name, kind, runs):
    """runs: {"alone" | "beside" | "control": [figures]}."""
    for command in ("SET", "GET"):
        cells = []
        for state in ("alone", "beside", "control"):
            figures = [median(runs[state], command, at) for at in range(3)]
            text = "/".join(f"{figure:.2f}" for figure in figures)
            if state != "alone":
                text += " = " + "/".join(f"{figure / median(runs['alone'], command, at):.1f}" for at, figure in enumerate(figures))
            cells.append(text)
        print(f"{kind:<15} {name[-22:]:<22} {command} {cells[0]:>18} {cells[1]:>34} {cells[2]:>34}", flush=True)


def run(options, folder):
    servers = {}
    try:
        for i, name in enumerate(options.servers):
            servers[name] = [start(name, 2 * i + j, options, folder) for j in range(2)]
        print(f"--cores {options.cores}, {options.rounds} rounds of {options.seconds} s; ms at 50% / 99% / longest, = ratios to alone")
        print(f"{'':<42} {'alone':>18} {'beside hostile clients':>34} {'beside those of another process':>34}", flush=True)
        for kind in options.kinds or KINDS:
            found = {name: {"alone": [], "beside": [], "control": []} for name in servers}
            for _ in range(options.rounds):
                for name, (mine, other) in servers.items():
                    found[name]["alone"].append(measure(mine.port, None, None, options))
                    found[name]["beside"].append(measure(mine.port, kind, mine.port, options))
                    found[name]["control"].append(measure(mine.port, kind, other.port, options))
            for name in servers:
                report(name, kind, found[name])
    finally:
        for pair in servers.values():
            for server in pair:
                server.stop()


def main():
    if sys.argv[1:2] == ["attack"]:
        return KINDS[sys.argv[2]](int(sys.argv[3]))
    if sys.argv[1:2] == ["stand-by"]:
        return stand_by(int(sys.argv[2]), float(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(f"{name:<16}{kind.__doc__}" for name, kind in KINDS.items()))
    parser.add_argument("kinds", nargs="*", help="all if none is named")
    parser.add_argument("--servers", default="kelda,redis", help="by commas (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="kelda serve --cores (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2, help="of a measurement (default: %(default)s)")
    parser.add_argument("--folder", type=pathlib.Path, help="where the servers keep their files (default: a temporary one)")
    options = parser.parse_args()
    options.servers = options.servers.split(",")
    if unknown := [kind for kind in options.kinds if kind not in KINDS]:
        parser.error(f"unknown kind: {unknown[0]}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and files do not stay behind
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kelda-hostile-", dir=options.folder))
    try:
        run(options, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
