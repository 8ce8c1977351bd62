#!/usr/bin/env python3
"""net_vm.py NET_ECHO passt|user|tap [SCENARIO ...]: boots the echo server on two CPUs with 64 MiB and talks to it over
TCP from the host, through passt or the project's own user-space network (neither needs privileges) or a tap device in a
network namespace of its own (root).
Prints one line of figures a scenario; exits 1 at the first thing that is wrong, 77 where the network cannot be had.
DUMP=FILE in the environment records the frames for tcpdump."""
import os
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from support import passt

GUEST = "10.0.2.15"
HOST = "10.0.2.2"
PORT = 7777
SKIPPED = 77  # the exit code that CTest shows as skipped


def real_kvm():
    flags = open("/proc/cpuinfo").read()
    return os.access("/dev/kvm", os.W_OK) and re.search(r"^flags.*\b(vmx|svm)\b", flags, re.M) is not None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Machine:
    """The guest with its network; `address` is where the host reaches the echo server."""

    def __init__(self, program, network, folder):
        self.log = os.path.join(folder, "console")
        self.helper = None
        arguments = ["net_echo", f"*:{PORT}", "--cores", "2"]
        if network in ("passt", "user"):
            netdev, keep = self.start_user_space(program, network, folder)
        else:
            netdev, keep = self.make_tap(), []
            self.address = (GUEST, PORT)
            arguments += ["--address", f"{GUEST}/24", "--gateway", HOST]
        accelerator = ["kvm", "host"] if real_kvm() else ["tcg,thread=multi", "max,-erms"]
        dump = []
        if "DUMP" in os.environ:
            dump = ["-object", "filter-dump,id=f,netdev=n0,maxlen=100,file=" + os.environ["DUMP"]]
        command = ["qemu-system-x86_64", "-machine", "q35", "-accel", accelerator[0], "-cpu", accelerator[1],
                   "-smp", "2", "-m", "64M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                   "-serial", f"file:{self.log}", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
                   "-netdev", netdev, "-device", "virtio-net-pci,netdev=n0", *dump,
                   "-kernel", program, "-append", " ".join(arguments)]
        self.qemu = subprocess.Popen(command, pass_fds=[k.fileno() for k in keep], stdin=subprocess.DEVNULL)
        for k in keep:
            k.close()
        self.wait_ready()

    def start_user_space(self, program, network, folder):
        mine, its = socket.socketpair()
        self.address = ("127.0.0.1", free_port())
        if network == "user":
            own = os.path.join(os.path.dirname(os.path.abspath(program)), "net_user")
            command = [own, str(its.fileno()), f"127.0.0.1:{self.address[1]}", str(PORT)]
        else:
            # It drops frames that the socket has no room for, and does not repeat a SYN: room for many small frames.
            its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            command = ["passt", "-f", "-q", "-l", os.path.join(folder, "passt"), "-F", str(its.fileno()), "-4",
                       "-a", GUEST, "-n", "24", "-g", HOST, "-u", "none", "-t", f"127.0.0.1/{self.address[1]}:{PORT}"]
            if os.getuid() == 0:  # it would become nobody, who cannot write the log
                command += ["--runas", "0:0"]
        self.helper = subprocess.Popen(command, pass_fds=[its.fileno()], stderr=subprocess.DEVNULL)
        its.close()
        return f"stream,id=n0,server=off,addr.type=fd,addr.str={mine.fileno()}", [mine]

    @staticmethod
    def make_tap():
        for line in ("tuntap add tap0 mode tap", f"address add {HOST}/24 dev tap0", "link set tap0 up", "link set lo up"):
            subprocess.run(["ip", *line.split()], check=True)
        return "tap,id=n0,ifname=tap0,script=no,downscript=no"

    def console(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def wait_ready(self):
        start = time.monotonic()
        while "ready:" not in (self.console() if os.path.exists(self.log) else ""):
            if self.qemu.poll() is not None or time.monotonic() - start > 40:
                fail(f"the guest did not become ready:\n{self.console()}")
            time.sleep(0.01)
        print(self.console().strip().splitlines()[-1])

    def alive(self):
        return self.qemu.poll() is None

    def stop(self):
        self.qemu.kill()
        self.qemu.wait()
        if self.helper:
            try:
                self.helper.wait(5)  # it ends with the machine
            except subprocess.TimeoutExpired:
                self.helper.kill()
                fail("the network's process did not end with the machine")


def fail(text):
    print(f"FAILED: {text}")
    sys.exit(1)


def skip(why):
    print(f"SKIPPED: {why}")
    sys.exit(SKIPPED)


def check(condition, text):
    if not condition:
        fail(text)


def connect(machine, timeout=20):
    s = socket.create_connection(machine.address, timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def receive(s, size):
    data = bytearray()
    while len(data) < size:
        piece = s.recv(size - len(data))
        check(piece, f"the stream ended after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def round_trip(s, data):
    s.sendall(data)
    check(receive(s, len(data)) == data, "the echo differs from what was sent")


def pump(machine, connections, size, rounds):
    """Each connection echoes `rounds` messages of `size` bytes, all at once. Returns the seconds it took."""
    message = os.urandom(size)
    selector = selectors.DefaultSelector()
    state = {}
    start = time.monotonic()
    for s in connections:
        s.setblocking(False)
        state[s] = [0, 0, rounds]  # sent, received, rounds left
        selector.register(s, selectors.EVENT_READ)
        state[s][0] = s.send(message)
    left = len(connections)
    while left:
        events = selector.select(timeout=20)
        check(events, f"{left} of {len(connections)} connections stand still")
        for key, mask in events:
            s = key.fileobj
            mine = state[s]
            if mask & selectors.EVENT_READ:
                piece = s.recv(65536)
                check(piece, "a connection was closed")
                check(piece == message[mine[1]:mine[1] + len(piece)], "the echo differs from what was sent")
                mine[1] += len(piece)
                if mine[1] == size:
                    mine[2] -= 1
                    mine[0] = mine[1] = 0
                    if not mine[2]:
                        left -= 1
                        selector.unregister(s)
                        s.setblocking(True)
                        s.settimeout(20)
                        continue
            if mine[0] < size:
                try:
                    mine[0] += s.send(message[mine[0]:])
                except BlockingIOError:
                    pass
            selector.modify(s, selectors.EVENT_READ | (selectors.EVENT_WRITE if mine[0] < size else 0))
    return time.monotonic() - start


def close_all(connections):
    for s in connections:
        s.close()


def small(machine):
    if shutil.which("redis-benchmark"):  # an echoed command is a valid reply
        for depth in (1, 16):
            output = subprocess.run(["redis-benchmark", "-h", machine.address[0], "-p", str(machine.address[1]), "-t", "set",
                                     "-d", "21", "-c", "50", "-n", str(20000 * depth), "-P", str(depth), "--csv"],
                                    capture_output=True, text=True, timeout=60).stdout
            fields = output.strip().splitlines()[-1].replace('"', "").split(",")
            print(f"64 B echo, 50 connections, {depth} under way each: {float(fields[1]):.0f}/s, "
                  f"p50 {fields[4]} ms, p99 {fields[6]} ms")
    with connect(machine) as s:
        start = time.monotonic()
        for _ in range(500):
            round_trip(s, b"x" * 64)
        print(f"64 B echo, 1 connection: {500 / (time.monotonic() - start):.0f}/s")


def large(machine):
    connections = [connect(machine) for _ in range(8)]
    seconds = pump(machine, connections, 16 * 1024, 64)
    print(f"16 KiB echo, 8 connections: {8 * 64 * 16 / 1024 / seconds:.0f} MiB/s each way")
    seconds = pump(machine, connections[:2], 4 << 20, 1)
    print(f"4 MiB echo, 2 connections: {8 / seconds:.0f} MiB/s each way")
    close_all(connections)


def thousand(machine):
    start = time.monotonic()
    connections = [connect(machine) for _ in range(1000)]
    connected = time.monotonic() - start
    seconds = pump(machine, connections, 64, 4)
    print(f"1,000 connections: connected in {connected:.2f} s, 4,000 echoes in {seconds:.2f} s")
    close_all(connections)


def storm(machine):
    start = time.monotonic()
    for _ in range(4):
        pending = []
        for _ in range(500):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(machine.address)
            pending.append(s)
        for s in pending:
            s.settimeout(20)
            while s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                try:
                    s.getpeername()
                    break
                except OSError:
                    time.sleep(0.001)
        pump(machine, pending, 64, 1)
        close_all(pending)
    print(f"storm: 2,000 connections, 500 at a time: {2000 / (time.monotonic() - start):.0f} connections/s")


def resets(machine):
    for _ in range(200):
        s = connect(machine)
        s.sendall(b"x" * 5000)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    with connect(machine) as s:
        round_trip(s, b"still there")
    print("200 connections reset in the middle: served on")


def hoarders(machine):
    """Clients that send for ever and never read: each is stopped, nobody else is."""
    greedy = [connect(machine) for _ in range(300)]
    block = b"y" * 65536
    sent = 0
    deadline = time.monotonic() + 4
    for s in greedy:
        s.setblocking(False)
    while time.monotonic() < deadline:
        for s in greedy:
            try:
                sent += s.send(block)
            except BlockingIOError:
                pass
    check(machine.alive(), f"the guest died:\n{machine.console()}")
    with connect(machine) as s:
        start = time.monotonic()
        for _ in range(50):
            round_trip(s, b"x" * 64)
        seconds = time.monotonic() - start
    print(f"300 clients that never read: {sent >> 20} MiB taken before they stopped; beside them 50 echoes in {seconds:.2f} s")
    close_all(greedy)
    with connect(machine) as s:
        round_trip(s, os.urandom(100_000))


def half_open(machine):
    """The way to the guest breaks for three seconds under load and heals."""
    connections = [connect(machine) for _ in range(20)]
    pump(machine, connections, 64, 1)
    if machine.helper:
        machine.helper.send_signal(signal.SIGSTOP)
    else:
        subprocess.run(["ip", "link", "set", "tap0", "down"], check=True)
    for s in connections[:10]:
        s.settimeout(20)
        s.send(b"z" * 1000)
    time.sleep(3)
    if machine.helper:
        machine.helper.send_signal(signal.SIGCONT)
    else:
        subprocess.run(["ip", "link", "set", "tap0", "up"], check=True)
    start = time.monotonic()
    for s in connections[:10]:
        check(receive(s, 1000) == b"z" * 1000, "data lost")
    with connect(machine) as s:
        round_trip(s, b"still there")
    print(f"network gone for 3 s: back after {time.monotonic() - start:.2f} s, nothing lost")
    close_all(connections)


SCENARIOS = {f.__name__: f for f in (small, large, thousand, storm, resets, hoarders, half_open)}


def main():
    program, network = sys.argv[1:3]
    if network == "tap" and "KELDA_NET_VM" not in os.environ:
        if os.getuid() != 0 or not os.path.exists("/dev/net/tun"):
            skip("a tap device needs root and /dev/net/tun")
        os.environ["KELDA_NET_VM"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory() as folder:
        if network == "passt" and not passt.starts():
            skip(passt.NEEDS)
        machine = Machine(program, network, folder)
        try:
            for name in sys.argv[3:] or SCENARIOS:
                SCENARIOS[name](machine)
                check(machine.alive(), f"the guest died:\n{machine.console()}")
        except (OSError, subprocess.TimeoutExpired) as error:
            fail(f"{type(error).__name__}: {error}\n{machine.console()}")
        finally:
            machine.stop()


main()
