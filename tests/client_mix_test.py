#!/usr/bin/env python3
"""Several clients at once, each with keys of its own whose values it knows: values of up to 300 kB, deletes, pipelines,
transactions, and a new connection now and then. Every reply must be what the client expects, and so must every key be
after a restart.

    client_mix_test.py hosted|vm [SECONDS [SEED]]
"""
import os
import random
import shutil
import sys
import tempfile
import threading
import time

from client_support import Connection
from support.kelda_process import Kelda, check

CLIENTS = 6
KEYS_EACH = 300
SIZES = (0, 1, 20, 100, 1000, 5000, 20_000, 100_000, 300_000)
# What is slower is stuck: an emulated machine that shares its CPUs with its clients stays far below.
REPLY_SECONDS = 60


class Wrong(Exception):
    pass


class Client(threading.Thread):
    def __init__(self, number, seed, port, end):
        super().__init__(daemon=True)
        self.prefix = b"%d:" % number
        self.random = random.Random(seed * 1000 + number)
        self.port, self.end = port, end
        self.expected = {}
        self.request_count, self.slowest_seconds, self.fault = 0, 0.0, ""

    def key(self):
        return self.prefix + b"%d" % self.random.randrange(KEYS_EACH)

    def value(self, sizes=SIZES):
        return self.random.randbytes(self.random.choice(sizes))

    def run(self):
        try:
            while time.monotonic() < self.end:
                with Connection("127.0.0.1", self.port, timeout=REPLY_SECONDS) as connection:
                    for _ in range(self.random.randrange(1, 200)):
                        begin = time.monotonic()
                        self.step(connection)
                        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begin)
        except Exception as error:  # noqa: BLE001: whatever it is, the main thread tells it
            self.fault = f"client {self.prefix.decode()} after {self.request_count} requests: {error!r}"

    def want(self, reply, wanted, what):
        self.request_count += 1
        if reply != wanted:
            raise Wrong(f"{what}: {str(reply)[:100]} instead of {str(wanted)[:100]}")

    def step(self, connection):
        kind = self.random.random()
        if kind < 0.4:
            key, value = self.key(), self.value()
            self.want(connection.ask("SET", key, value), b"OK", "SET")
            self.expected[key] = value
        elif kind < 0.8:
            key = self.key()
            self.want(connection.ask("GET", key), self.expected.get(key), "GET")
        elif kind < 0.87:
            key = self.key()
            self.want(connection.ask("DEL", key), int(self.expected.pop(key, None) is not None), "DEL")
        else:
            self.pipeline(connection, kind < 0.94)

    def pipeline(self, connection, transaction):
        pairs = [(self.key(), self.value(SIZES[:5])) for _ in range(4)]
        requests = [("SET", key, value) for key, value in pairs]
        wanted = [b"OK"] * len(pairs)
        if transaction:
            requests = [("MULTI",), *requests, ("EXEC",)]
            wanted = [b"OK"] + [b"QUEUED"] * len(pairs) + [wanted]
        connection.send_raw(b"".join(Connection.encode(*request) for request in requests))
        self.want([connection.read().plain() for _ in requests], wanted, "a pipeline")
        self.expected.update(pairs)


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in ("hosted", "vm"):
        sys.exit(__doc__)
    mode = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(10**6)
    folder = tempfile.mkdtemp(prefix="kelda-mix-")
    disk = os.path.join(folder, "disk")
    # Less memory than data, so that pages are evicted as well.
    server = Kelda(mode, disk, memory="64M", machine="microvm" if seed % 2 else "q35")
    try:
        server.start()
        end = time.monotonic() + seconds
        clients = [Client(i, seed, server.port, end) for i in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        faults = [client.fault for client in clients if client.fault]
        print(f"seed {seed}: {sum(client.request_count for client in clients)} requests, "
              f"slowest {max(client.slowest_seconds for client in clients) * 1000:.0f} ms")
        code = server.stop()
        if faults or code != 0:
            sys.exit("\n".join([*faults, f"the server ended with {code}:", server.output()]))
        code, text = check(disk)
        if code != 0:
            sys.exit(text)
        server.start()
        with Connection("127.0.0.1", server.port, timeout=REPLY_SECONDS) as connection:
            for client in clients:
                for key in (client.prefix + b"%d" % i for i in range(KEYS_EACH)):
                    client.want(connection.ask("GET", key), client.expected.get(key), f"{key} after a restart")
        if server.stop() != 0:
            sys.exit(server.output())
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
