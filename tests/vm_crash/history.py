"""What clients sent and were told, and what a disk must therefore hold after a crash.

Every operation is one command or one MULTI on keys that only its writer touches. Between sending and the answer it is
under way: it may be there after a crash or not, but never a half of it. From the answer on it must be there.
"""
import random
import sys
import threading
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from client_support import Connection, Error  # noqa: E402

KEYS_A_WRITER = 150
VALUE_BYTES = (10, 100, 900, 3000, 20_000)
LARGE_VALUE_BYTES = 200_000  # overflow pages, several log records
OPS_IN_A_PIPELINE = 8


class Operation(NamedTuple):
    number: int
    writer: int
    changes: dict  # key -> length of the value, or None: deleted

    def value(self, key):
        length = self.changes[key]
        if length is None:
            return None
        seed = f"{self.number}:{key}:".encode()
        return (seed * (length // len(seed) + 1))[:max(length, len(seed))]


class Sent(NamedTuple):
    operation: Operation


class Ended(NamedTuple):
    """Answered; or, after a restart, found to have happened or not: a read promises as much as an answer."""
    operation: Operation
    applied: bool


class Phase(NamedTuple):
    """What the machine does from here on."""
    name: str


class Writer(threading.Thread):
    """One client until the connection breaks, or stop is set. What it left under way is in `open`."""

    def __init__(self, number, port, events, next_number, seed, stop):
        super().__init__(daemon=True)
        self.number, self.port, self.events, self.next_number, self.stop = number, port, events, next_number, stop
        self.random = random.Random(seed)
        self.open = []
        self.failure = None

    def run(self):
        try:
            with Connection("127.0.0.1", self.port, timeout=60) as self.connection:
                while not self.stop.is_set():
                    self.step()
        except (EOFError, OSError):
            pass  # the machine was killed
        except Exception as error:  # shown by whoever joins: a test must not pass over it
            self.failure = repr(error)

    def step(self):
        dice = self.random.random()
        if dice < 0.4:
            self.carry_out([self.operation(1)])
        elif dice < 0.7:
            self.carry_out([self.operation(self.random.randint(2, 5))])
        else:
            keys = self.keys(OPS_IN_A_PIPELINE)
            self.carry_out([self.operation_on([key]) for key in keys])

    def keys(self, count):
        return [f"w{self.number}:{i}" for i in self.random.sample(range(KEYS_A_WRITER), count)]

    def operation(self, key_count):
        return self.operation_on(self.keys(key_count))

    def operation_on(self, keys):
        return Operation(next(self.next_number), self.number, {key: self.length() for key in keys})

    def length(self):
        dice = self.random.random()
        return None if dice < 0.15 else LARGE_VALUE_BYTES if dice < 0.17 else self.random.choice(VALUE_BYTES)

    def carry_out(self, operations):
        """Sends them together; each is noted before it can happen, and its end as soon as its reply is read."""
        requests = []
        for operation in operations:
            commands = [("DEL", key) if length is None else ("SET", key, operation.value(key))
                        for key, length in operation.changes.items()]
            requests.append(commands if len(commands) == 1 else [("MULTI",), *commands, ("EXEC",)])
            self.events.append(Sent(operation))
        self.open = list(operations)
        self.connection.send_raw(b"".join(Connection.encode(*c) for commands in requests for c in commands))
        for operation, commands in zip(operations, requests):
            for _ in commands:
                answer = self.connection.read().plain()
                wrong = [a for a in (answer if isinstance(answer, list) else [answer]) if isinstance(a, Error)]
                if wrong:
                    raise AssertionError(f"{operation.changes}: {wrong[0]}")
            self.events.append(Ended(operation, True))
            self.open.remove(operation)


class Expectation:
    """What was promised up to some event."""

    def __init__(self):
        self.promised = {}  # key -> the last operation on it that ended and was applied
        self.under_way = {}  # number -> operation, in the order of sending

    def take(self, event):
        if isinstance(event, Sent):
            self.under_way[event.operation.number] = event.operation
        elif isinstance(event, Ended):
            del self.under_way[event.operation.number]
            if event.applied:
                self.promised.update(dict.fromkeys(event.operation.changes, event.operation))

    def promised_value(self, key):
        return self.promised[key].value(key) if key in self.promised else None

    def outcomes(self, operation, found):
        """Of an operation under way, by its keys: {True} happened, {False} did not, both: a half of it; {} cannot be told."""
        before = {key: self.promised_value(key) for key in operation.changes}
        return {found[key] == operation.value(key) for key in operation.changes if before[key] != operation.value(key)}

    def problems(self, found):
        """found: key -> value or None, for every key that was ever written to."""
        problems = []
        allowed = {key: {self.promised_value(key)} for key in found}
        missing = set()  # writers of which an operation did not happen: those that it sent later cannot have
        for operation in self.under_way.values():
            for key in operation.changes:
                allowed[key].add(operation.value(key))
            outcomes = self.outcomes(operation, found)
            if len(outcomes) == 2:
                problems.append(f"half of a transaction: {operation.changes}")
            if False in outcomes:
                missing.add(operation.writer)
            elif True in outcomes and operation.writer in missing:
                problems.append(f"one that was sent earlier is missing: {operation.changes}")
        for key, value in found.items():
            if value not in allowed[key]:
                problems.append(f"{key}: {shown(value)} instead of {' or '.join(map(shown, allowed[key]))}")
        return problems

    def settle(self, found):
        """After a restart, those under way have happened or not: their ends."""
        return [Ended(operation, True in self.outcomes(operation, found)) for operation in self.under_way.values()]


def all_keys(events):
    return sorted({key for event in events if isinstance(event, Sent) for key in event.operation.changes})


def read_keys(connection, keys):
    connection.send_raw(b"".join(Connection.encode("GET", key) for key in keys))
    return {key: connection.read().plain() for key in keys}


def shown(value):
    return "nothing" if value is None else f"{value[:16]!r} ({len(value)} bytes)"
