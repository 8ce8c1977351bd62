#!/usr/bin/python3
"""kill -9 under load: what was acknowledged is there after the restart, and no half of a MULTI is.

usage: crash_test.py hosted|vm|vm-page-cache|both [ROUNDS] [SEED]

Each round: several clients write (single SETs, and pairs in MULTI), recording what was acknowledged; at a random moment
the process that holds the disk is killed; the server is started again and every key is compared; `kelda check` must be
content. `both` opens the disk alternately as a process and as a VM; in `vm-page-cache` the host's page cache lies between, as
where the disk's filesystem has no direct I/O.
"""
import pathlib
import random
import sys
import tempfile
import threading
import time

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support.kelda_process import Kelda, check  # noqa: E402

WRITERS = 4
KEYS_A_WRITER = 400


class Writer(threading.Thread):
    """Keeps, for each key, the last acknowledged version and the one that was under way."""

    def __init__(self, number, port, acknowledged, attempted, version):
        super().__init__(daemon=True)
        self.number, self.port, self.acknowledged, self.attempted, self.version = number, port, acknowledged, attempted, version
        self.random = random.Random(number * 1000 + version)
        self.count = 0

    def value(self, version):
        return f"{version}:" + "x" * self.random.choice((5, 100, 900, 3000, 20000))

    def run(self):
        client = redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=60)
        try:
            while True:
                self.version += 1
                if self.random.random() < 0.3:
                    self.write_pair(client)
                else:
                    self.write_one(client)
                self.count += 1
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError, OSError):
            return

    def write_one(self, client):
        key = f"w{self.number}:{self.random.randrange(KEYS_A_WRITER)}"
        self.attempted[key] = self.version
        client.set(key, self.value(self.version))
        self.acknowledged[key] = self.version

    def write_pair(self, client):
        n = self.random.randrange(KEYS_A_WRITER)
        keys = [f"p{self.number}:{n}:left", f"p{self.number}:{n}:right"]
        for key in keys:
            self.attempted[key] = self.version
        pipe = client.pipeline(transaction=True)
        for key in keys:
            pipe.set(key, self.value(self.version))
        pipe.execute()
        for key in keys:
            self.acknowledged[key] = self.version


def compare(port, acknowledged, attempted):
    client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=60)
    found = {}
    for key in sorted(attempted):
        value = client.get(key)
        version = None if value is None else int(value.split(b":")[0])
        found[key] = version
        low = acknowledged.get(key)
        allowed = {low, attempted[key]}
        assert version in allowed, f"{key}: found version {version}, acknowledged {low}, under way {attempted[key]}"
    for key, version in found.items():
        if key.endswith(":left"):
            other = found[key[:-4] + "right"]
            assert version == other, f"half of a MULTI: {key} is {version}, its right half {other}"
    return found


def main():
    mode = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 30)
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    extra = []
    if mode == "vm-page-cache":
        mode, extra = "vm", ["--qemu=-set", "--qemu=drive.disk0.cache.direct=off"]
    acknowledged, attempted = {}, {}
    version = 0
    with tempfile.TemporaryDirectory(prefix="kelda-crash-") as folder:
        disk = pathlib.Path(folder) / "disk"
        for number in range(rounds + 1):
            this_mode = mode if mode != "both" else ("hosted", "vm")[number % 2]
            server = Kelda(this_mode, disk, memory="128M", create="256M", extra=extra).start()
            try:
                found = compare(server.port, acknowledged, attempted)
                # What is found now is the truth for the next round.
                acknowledged = {k: v for k, v in found.items() if v is not None}
                attempted = dict(found)
                if number == rounds:
                    break
                writers = [Writer(i, server.port, acknowledged, attempted, version) for i in range(WRITERS)]
                for writer in writers:
                    writer.start()
                time.sleep(chance.uniform(0.05, 2.0))
                server.kill()
                for writer in writers:
                    writer.join(90)
                version = max(writer.version for writer in writers)
            finally:
                server.kill()
            code, text = check(disk)
            assert code == 0, f"check after round {number}:\n{text}"
            print(f"round {number} {this_mode}: {sum(w.count for w in writers)} writes, {len(acknowledged)} keys; "
                  f"{next((l for l in server.lines if ' recovery: ' in l), '')}", flush=True)
        else:
            raise AssertionError("unreachable")
    print(f"{rounds} passed, 0 failed")


if __name__ == "__main__":
    main()
