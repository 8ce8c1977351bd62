#!/usr/bin/env python3
"""Random commands, the same to a real redis-server and to ours; every reply must be the same, and at the end every key with its
value. A seed that once found a difference belongs into SEEDS.

    server_random_test.py hosted|vm|HOST:PORT|MEMORY_SERVER [SEED ...]
"""
import random
import sys

from client_support import Connection, RedisServer, server_from_argument
from server_compare_test import same

SEEDS = [1, 2, 3, 4]
COMMANDS = 4000
BATCH = 100

KEYS = ["a", "b", "c", "user:1", "user:2", "", "n", "f", "k\x00", "\x00", "long" * 40]
VALUES = ["", "0", "1", "-1", "10", "3.5", "text", "1e3", " 1", "01", "9223372036854775807", "-9223372036854775808", "x" * 50, "\r\n", "nan"]
NUMBERS = ["0", "1", "-1", "5", "100", "-100", "x", "", "1.5", "9223372036854775807", "-9223372036854775808", "9223372036854775808"]
OFFSETS = ["0", "1", "-1", "5", "-5", "30", "-30", "x"]
FLOATS = ["0.1", "-0.1", "3", "1e2", "x", "inf", "nan", "0", "1e-5", "-2.5e1"]
# Far away, or past: what happens at the instant of an expiry is not for a comparison of two servers.
SECONDS = ["5000", "9000", "100000", "0", "-1", "x", "9223372036854775807"]
AT = ["33177117420", "1", "0", "-5", "x"]


class Script:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def key(self): return self.random.choice(KEYS)
    def value(self): return self.random.choice(VALUES)
    def some(self, what, least=1, most=4): return [what() for _ in range(self.random.randint(least, most))]
    def maybe(self, *words): return list(words) if self.random.random() < 0.3 else []

    def seconds(self):
        # Never twice the same: GT and LT would depend on the millisecond.
        return self.random.choice(["0", "-1", "x", "9223372036854775807"] + [str(self.random.randint(5000, 10**9))] * 6)

    def expiry(self):
        return self.random.choice([["EX", self.random.choice(SECONDS)], ["PX", self.random.choice(SECONDS) + "000"],
                                   ["EXAT", self.random.choice(AT)], ["PXAT", self.random.choice(AT) + "000"]])

    def strings(self):
        r, k = self.random, self.key
        return r.choice([
            lambda: ["SET", k(), self.value()] + self.maybe(*self.expiry()) + self.maybe(r.choice(["NX", "XX"])) + self.maybe("GET") + self.maybe("KEEPTTL"),
            lambda: ["GET", k()], lambda: ["SETNX", k(), self.value()], lambda: ["SETEX", k(), r.choice(SECONDS), self.value()],
            lambda: ["GETSET", k(), self.value()], lambda: ["GETDEL", k()], lambda: ["GETEX", k()] + self.maybe(*self.expiry()) + self.maybe("PERSIST"),
            lambda: ["MGET"] + self.some(k), lambda: ["MSET"] + [x for _ in range(r.randint(1, 3)) for x in (k(), self.value())],
            lambda: ["MSETNX"] + [x for _ in range(r.randint(1, 3)) for x in (k(), self.value())],
            lambda: [r.choice(["INCR", "DECR"]), k()], lambda: [r.choice(["INCRBY", "DECRBY"]), k(), r.choice(NUMBERS)],
            lambda: ["INCRBYFLOAT", k(), r.choice(FLOATS)], lambda: ["APPEND", k(), self.value()], lambda: ["STRLEN", k()],
            lambda: ["GETRANGE", k(), r.choice(OFFSETS), r.choice(OFFSETS)], lambda: ["SETRANGE", k(), r.choice(OFFSETS), self.value()],
        ])()

    def generic(self):
        r, k = self.random, self.key
        return r.choice([
            lambda: [r.choice(["DEL", "UNLINK", "EXISTS", "TOUCH"])] + self.some(k), lambda: ["TYPE", k()],
            lambda: [r.choice(["RENAME", "RENAMENX"]), k(), k()],
            lambda: ["COPY", k(), k()] + self.maybe("DB", r.choice(["0", "1", "99"])) + self.maybe("REPLACE"),
            lambda: [r.choice(["EXPIRE", "PEXPIRE"]), k(), self.seconds()] + self.maybe(r.choice(["NX", "XX", "GT", "LT"])) + self.maybe(r.choice(["XX", "GT"])),
            lambda: ["EXPIREAT", k(), r.choice(AT)], lambda: [r.choice(["TTL", "EXPIRETIME"]), k()], lambda: ["PERSIST", k()],
            lambda: ["DBSIZE"], lambda: ["KEYS", r.choice(["*", "user:*", "?", "[a-c]", "long*", "n*"])],
            lambda: ["SELECT", r.choice(["0", "0", "1"])], lambda: ["OBJECT", "ENCODING", "never"], lambda: ["ECHO", self.value()],
            lambda: ["FLUSHDB"] if r.random() < 0.05 else ["PING"], lambda: [r.choice(["GET", "SET", "NOPE", "INCRBY"])],
        ])()

    def transactions(self):
        return self.random.choice([["MULTI"], ["EXEC"], ["EXEC"], ["DISCARD"], ["WATCH", self.key(), self.key()], ["UNWATCH"]])

    def next(self):
        draw = self.random.random()
        return self.strings() if draw < 0.62 else self.generic() if draw < 0.9 else self.transactions()


def mark_of(request):
    if request[0] in ("TTL", "EXPIRETIME", "PTTL"):
        return "near"
    if request[0] == "DBSIZE":
        return "near"  # keys that have expired are counted until they are reclaimed
    return "unordered"  # of KEYS, also inside EXEC; for all that has no arrays it is equality


def close_enough(request, ours, theirs):
    if ours == theirs or same(mark_of(request), ours, theirs):
        return True
    # EXEC with a TTL among its replies.
    return ours.kind == theirs.kind == "*" and ours.value is not None and theirs.value is not None and \
        len(ours.value) == len(theirs.value) and all(same("unordered", a, b) or same("near", a, b) for a, b in zip(ours.value, theirs.value))


def run(seed, ours, theirs, resp3):
    script = Script(seed)
    failures = 0
    for connection in (ours, theirs):
        connection.call("RESET")
        connection.call("FLUSHALL")
        if resp3:
            connection.call("HELLO", "3")
    for start in range(0, COMMANDS, BATCH):
        requests = [script.next() for _ in range(BATCH)]
        data = b"".join(Connection.encode(*request) for request in requests)
        for connection in (ours, theirs):
            connection.send_raw(data)
        for i, request in enumerate(requests):
            mine, real = ours.read(), theirs.read()
            if not close_enough(request, mine, real):
                failures += 1
                if failures <= 5:
                    print(f"seed {seed}, command {start + i}: {request}\n  Redis {real}\n  Kelda {mine}")
    for connection in (ours, theirs):
        connection.call("RESET")
    for database in range(2):
        final = []
        for connection in (ours, theirs):
            connection.call("SELECT", database)
            keys = sorted(connection.ask("KEYS", "*"))
            final.append([(key, connection.ask("GET", key), connection.ask("TTL", key) == -1) for key in keys])
        if final[0] != final[1]:
            failures += 1
            print(f"seed {seed}: database {database} differs at the end:\n  Redis {final[1]}\n  Kelda {final[0]}")
    return failures


def main():
    failures = 0
    with server_from_argument() as server, RedisServer() as redis:
        seeds = [int(seed) for seed in sys.argv[1:]] or SEEDS
        for seed in seeds:
            with Connection(server.host, server.port) as ours, Connection(redis.host, redis.port) as theirs:
                failures += run(seed, ours, theirs, resp3=seed % 2 == 0)
    print(f"{len(seeds)} scripts of {COMMANDS} commands, {failures} differences")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
