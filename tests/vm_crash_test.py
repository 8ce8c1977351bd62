#!/usr/bin/python3
"""Power cuts of a virtual machine, from what its virtio-blk device really wrote: nothing acknowledged is lost.

usage: vm_crash_test.py [--states N] [--vm-states N] [--seconds S] [--seed N] [--keep FOLDER]

1. A VM serves from a disk that records each write, flush and completion (support/recording_disk.py), while clients set,
   overwrite, delete, pipeline and use MULTI, small values and large, and checkpoints run; the log wraps. QEMU is killed
   with kill -9 in the middle, the VM started again, and at the end stopped properly.
2. For many moments of that recording a disk is made as a power cut may leave it (vm_crash/crash_states.py). Kelda is
   started on it, as a process and on some as a VM: every acknowledged write must be there, no half of a MULTI, nothing
   that nobody wrote; it must close properly, and `kelda check` must be content.
3. The same with a disk that lied about its last flush must lose something, or these eyes see nothing.
"""
import argparse
import collections
import concurrent.futures
import copy
import itertools
import pathlib
import random
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "vm_crash")]
from client_support import Connection  # noqa: E402
from crash_states import FATES, Disk  # noqa: E402
from history import Ended, Expectation, Phase, Writer, all_keys, read_keys  # noqa: E402
from support.recording_disk import Done, RecordingDisk, Write  # noqa: E402
from support.kelda_process import Kelda, check  # noqa: E402

DISK_BYTES = 48 << 20
LOG_BYTES = 3 << 20  # what Kelda chooses for such a disk
WRITERS = 4
LIAR_STATES, MOST_LIAR_STATES = 6, 48
CHECKPOINT_SECONDS = 0.7


def boot(disk, folder):
    """`kelda vm`, with the recording disk in place of its file."""
    # QEMU lets later words overrule the -drive before them.
    overruled = ["-set", f"drive.disk0.file=nbd+unix:///?socket={disk.socket_path}"]
    return Kelda("vm", folder / "stand-in", memory="128M", create=str(DISK_BYTES),
                 extra=[f"--qemu={word}" for word in overruled])


def make_checkpoints(port, stop):
    try:
        with Connection("127.0.0.1", port, timeout=60) as connection:
            while not stop.wait(CHECKPOINT_SECONDS):
                connection.ask("KELDA.CHECKPOINT")
    except (EOFError, OSError):
        pass  # the machine was killed


class Session:
    """The load on one boot."""

    def __init__(self, machine, disk, numbers, seed):
        self.stop = threading.Event()
        self.writers = [Writer(i, machine.port, disk.events, numbers, f"{seed}:{i}", self.stop) for i in range(WRITERS)]
        self.threads = [*self.writers, threading.Thread(target=make_checkpoints, args=(machine.port, self.stop), daemon=True)]
        for thread in self.threads:
            thread.start()

    def join(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(90)
        for writer in self.writers:
            if writer.failure:
                raise AssertionError(writer.failure)
        return [operation for writer in self.writers for operation in writer.open]


def settle(events, port):
    """After a restart: what is there, and what that says of the operations that were under way."""
    expectation = Expectation()
    for event in events:
        expectation.take(event)
    with Connection("127.0.0.1", port, timeout=60) as connection:
        found = read_keys(connection, all_keys(events))
    if problems := expectation.problems(found):
        raise AssertionError(f"after kill -9: {problems}")
    events.extend(expectation.settle(found))


def record(folder, seconds, seed):
    """The events of two boots, with a kill -9 between them."""
    disk = RecordingDisk(folder / "nbd", DISK_BYTES, seed)
    numbers = itertools.count(1)
    try:
        disk.events.append(Phase("formatting"))
        with boot(disk, folder) as machine:
            disk.events.append(Phase("load"))
            session = Session(machine, disk, numbers, f"{seed}:1")
            time.sleep(seconds / 2)
            machine.kill()
            session.join()
        disk.events.append(Phase("recovery"))
        with boot(disk, folder) as machine:
            settle(disk.events, machine.port)
            disk.events.append(Phase("load"))
            session = Session(machine, disk, numbers, f"{seed}:2")
            time.sleep(seconds / 2)
            if under_way := session.join():
                raise AssertionError(f"not answered: {under_way}")
            disk.events.append(Phase("closing"))
            if (code := machine.stop()) != 0:
                raise AssertionError(f"the VM ended with {code}:\n{machine.output()}")
    finally:
        disk.stop()
    return disk.events


def answers(events):
    return [i for i, event in enumerate(events) if isinstance(event, Ended)]


def moments(events, count, chance):
    """Indexes behind which the power is cut. Of those under load, a third lies directly behind an answer, a third just before
    a flush is complete, when most is at stake, the rest anywhere."""
    phases = {"formatting": [], "load": [], "recovery": [], "closing": []}
    writes = {event.number for event in events if isinstance(event, Write)}
    answered, flushes = [], []
    for i, event in enumerate(events):
        if isinstance(event, Phase):
            phase = event.name
        phases[phase].append(i + 1)
        if phase == "load" and isinstance(event, Ended):
            answered.append(i + 1)
        if phase == "load" and isinstance(event, Done) and event.number not in writes:
            flushes.append(i)
    chosen = []
    for phase, share in (("formatting", 0.05), ("recovery", 0.1), ("closing", 0.05)):
        chosen += chance.sample(phases[phase], min(round(count * share), len(phases[phase])))
    third = (count - len(chosen)) // 3
    for where in (answered, flushes):
        chosen += chance.sample(where, min(third, len(where)))
    return sorted(chosen + chance.choices(phases["load"], k=count - len(chosen)))


def look(mode, image, keys, expectation):
    """What is wrong with Kelda on this disk."""
    server = Kelda(mode, image, memory="64M", create=str(DISK_BYTES))
    try:
        server.start()
    except AssertionError as error:
        server.kill()
        return [f"it does not start: {error}"]
    try:
        with Connection("127.0.0.1", server.port, timeout=60) as connection:
            found = read_keys(connection, keys)
            problems = expectation.problems(found)
            extra = connection.ask("DBSIZE") - sum(value is not None for value in found.values())
            if extra:
                problems.append(f"{extra} keys that nobody wrote")
        if (code := server.stop()) != 0:
            problems.append(f"it ended with {code}: {server.output()}")
    finally:
        server.kill()
    code, text = check(image)
    if code != 0:
        problems.append(f"kelda check: {text}")
    return problems


class Replay:
    """Cuts the power behind each moment and looks at what Kelda makes of it."""

    def __init__(self, events, folder, seed, vm_states=0, keep=None, lying_flushes=0, fates=tuple(FATES)):
        self.events, self.folder, self.seed, self.keep, self.lying_flushes = events, folder, seed, keep, lying_flushes
        self.vm_states, self.fates = vm_states, fates
        self.keys = all_keys(events)
        self.counts = collections.Counter()
        self.bad_states = []
        self.looked_at = self.most_at_stake = 0

    def run(self, cuts):
        chance = random.Random(self.seed)
        disk, expectation = Disk(DISK_BYTES, self.lying_flushes), Expectation()
        vm_numbers = set(chance.sample(range(len(cuts)), self.vm_states))
        position, phase = 0, None
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            looks = collections.deque()
            for number, cut in enumerate(cuts):
                for event in self.events[position:cut]:
                    disk.take(event)
                    expectation.take(event)
                    phase = event.name if isinstance(event, Phase) else phase
                position = cut
                fate = self.fates[number % len(self.fates)]
                mode = "vm" if number in vm_numbers else "hosted"
                image = self.folder / f"state-{number}"
                write_sparse(image, disk.image(fate, chance))
                self.counts.update([fate, mode, phase])
                self.most_at_stake = max(self.most_at_stake, len(disk.pending))
                what = f"state {number}, {phase}, behind event {cut}, {fate} of {len(disk.pending)} writes, {mode}"
                looks.append((what, image, pool.submit(look, mode, image, self.keys, copy.deepcopy(expectation))))
                while len(looks) > 3:
                    self.finish(*looks.popleft())
            while looks:
                self.finish(*looks.popleft())
        if disk.overlapping_in_flight:
            raise AssertionError(f"{disk.overlapping_in_flight} writes overlapped others under way: any of the two could win")

    def finish(self, what, image, result):
        if problems := result.result():
            self.bad_states.append(f"{what}: {len(problems)} problems, the first: {problems[0]}")
            if self.keep:
                image.rename(self.keep / image.name)
        image.unlink(missing_ok=True)
        self.looked_at += 1
        if self.looked_at % 50 == 0:
            print(f"{self.looked_at} states looked at, {len(self.bad_states)} bad", flush=True)


def write_sparse(path, image):
    piece_bytes = 1 << 16
    zeroes = bytes(piece_bytes)
    with open(path, "wb") as file:
        file.truncate(len(image))
        for at in range(0, len(image), piece_bytes):
            piece = image[at:at + piece_bytes]
            if piece != zeroes:
                file.seek(at)
                file.write(piece)


def describe(events):
    kinds = collections.Counter(type(event).__name__ for event in events)
    written = sum(len(event.data) for event in events if isinstance(event, Write))
    log_area = [event for event in events if isinstance(event, Write) and event.offset < LOG_BYTES]
    return (f"{kinds['Write']} writes ({written >> 20} MiB), {kinds['Flush']} flushes, {kinds['Sent']} operations sent, "
            f"{kinds['Ended']} ended; {sum(len(w.data) for w in log_area) / LOG_BYTES:.1f} times round the log")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--states", type=int, default=30)
    parser.add_argument("--vm-states", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="kelda-vm-crash-") as name:
        folder = pathlib.Path(name)
        events = record(folder, options.seconds, options.seed)
        print(f"recorded: {describe(events)}", flush=True)
        replay = Replay(events, folder, options.seed, options.vm_states, options.keep)
        replay.run(moments(events, options.states, chance))
        liar = Replay(events, folder, options.seed, lying_flushes=1, fates=["all lost"])
        # An answer may come after a later flush than its own: then the lie does not matter.
        while not liar.bad_states and liar.looked_at < MOST_LIAR_STATES:
            liar.run([i + 1 for i in sorted(chance.sample(answers(events), LIAR_STATES))])
    print("\n".join([f"{count} {name}" for name, count in sorted(replay.counts.items())] + replay.bad_states))
    print(f"{replay.looked_at} crash states replayed, up to {replay.most_at_stake} writes at stake: {len(replay.bad_states)} with a loss")
    print(f"{liar.looked_at} with a disk whose last flush lied: {len(liar.bad_states)} with a loss, as there must be")
    if replay.bad_states or not liar.bad_states or replay.looked_at < options.states:
        sys.exit(1)


if __name__ == "__main__":
    main()
