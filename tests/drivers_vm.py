#!/usr/bin/env python3
"""drivers_vm.py PROGRAM MACHINE[:CPUS] [ARGUMENT ...]: boots the drivers' test program on MACHINE (q35, pc, microvm, or
microvm,acpi=off, which tells of its devices on the command line) with disks, a network and an entropy device, resizes a
disk when the guest asks for it, and exits with the guest's exit code."""
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

PLAN = """[inject-error]
event = "none"
iotype = "write"
sector = "2048"
errno = "5"

[inject-error]
event = "none"
iotype = "flush"
errno = "5"
once = "on"
"""


def real_kvm():
    try:
        flags = open("/proc/cpuinfo").read()
    except OSError:
        return False
    return os.access("/dev/kvm", os.W_OK) and re.search(r"^flags.*\b(vmx|svm)\b", flags, re.M) is not None


def command(program, machine, folder, arguments):
    machine, _, cpus = machine.partition(":")
    is_microvm = machine.startswith("microvm")
    suffix = "device" if is_microvm else "pci"
    accelerator = ["-accel", "kvm", "-cpu", "host"] if real_kvm() else ["-accel", "tcg,thread=multi", "-cpu", "max,-erms"]
    images = []
    for name in ("first", "second", "third"):
        images.append(os.path.join(folder, name))
        with open(images[-1], "wb") as image:
            image.truncate(64 << 20)
    plan = os.path.join(folder, "plan")
    with open(plan, "w") as file:
        file.write(PLAN)
    flags = ["qemu-system-x86_64", "-machine", machine, *accelerator, "-smp", cpus or "2", "-m", "256M", "-nodefaults",
             "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
             "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
             "-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
    if is_microvm:
        flags += ["-global", "virtio-mmio.force-legacy=false"]
    drive = "if=none,format=raw,werror=report,rerror=report,discard=unmap"
    flags += ["-drive", f"{drive},file={images[0]},id=d0,cache=writeback",
              "-drive", f"{drive},file=blkdebug:{plan}:{images[1]},id=d1,cache=writeback",
              "-drive", f"{drive},file={images[2]},id=d2,readonly=on",
              "-device", f"virtio-blk-{suffix},drive=d0,num-queues=2,serial=first",
              "-device", f"virtio-blk-{suffix},drive=d1,num-queues=1",
              "-device", f"virtio-blk-{suffix},drive=d2,logical_block_size=4096,physical_block_size=4096",
              "-netdev", "user,id=n0", "-device", f"virtio-net-{suffix},netdev=n0,mac=52:54:00:12:34:56",
              "-device", f"virtio-rng-{suffix}"]
    if not is_microvm:
        flags += ["-device", "virtio-rng-pci"]  # a spare one
    line = " ".join(["drivers_test", *arguments])
    return flags + ["-kernel", program, "-append", line]


def resize(path, device, size_bytes):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    stream = connection.makefile("rw")
    stream.readline()
    for request in ({"execute": "qmp_capabilities"},
                    {"execute": "block_resize", "arguments": {"device": device, "size": size_bytes}}):
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        while True:
            answer = json.loads(stream.readline())
            if "error" in answer:
                sys.exit(f"QMP: {answer}")
            if "return" in answer:
                break
    connection.close()


def main():
    program, machine = sys.argv[1:3]
    arguments = sys.argv[3:] or ["--gtest_filter=Machine.*"]
    with tempfile.TemporaryDirectory() as folder:
        guest = subprocess.Popen(command(program, machine, folder, arguments), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, text=True, errors="replace")
        timer = threading.Timer(240, guest.kill)
        timer.start()
        skipped = False
        for line in guest.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            skipped |= "SKIPPED" in line
            if "resize the first disk now" in line:
                time.sleep(0.2)  # let the guest go to sleep
                resize(f"{folder}/qmp", "d0", 80 << 20)
        status = guest.wait()
        timer.cancel()
    if status & 1 == 0 or status < 3:
        sys.exit(f"the guest did not end by itself: QEMU's status is {status}")
    if skipped:
        sys.exit("tests were skipped: the guest did not find its devices")
    sys.exit((status >> 1) - 1)


main()
