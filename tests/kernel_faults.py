#!/usr/bin/env python3
"""kernel_faults.py PROGRAM: boots kernel_fault once per fault and looks at what the panic says.

Every fault must end the machine with the panic exit code, name its kind, and show a symbolised backtrace with the
function that did it, also of the CPU that was busy elsewhere. Also here: exit codes, the power button and power-off."""
import concurrent.futures
import json
import os
import re
import socket
import subprocess
import sys
import tempfile

PANIC = 101
OTHER = "kelda::kernel_fault::busy_elsewhere"
KVM = os.access("/dev/kvm", os.W_OK) and re.search(r"^flags.*\b(vmx|svm)\b", open("/proc/cpuinfo").read(), re.M)
ACCEL = ["-accel", "kvm", "-cpu", "host"] if KVM else ["-accel", "tcg,thread=multi", "-cpu", "max,-erms"]

# fault: (what the heading says, function in the backtrace)
FAULTS = {
    "read-null": ("null pointer access, read of 0x0000000000000000", "read_null"),
    "write-null": ("null pointer access, write to 0x0000000000000000", "write_null"),
    "write-code": ("write to read-only memory", "write_code"),
    "write-constant": ("write to read-only memory", "write_constant"),
    "wild-jump": ("jump to memory that is not code, jump to 0x0000123456789000", "wild_jump"),
    "run-data": ("jump to memory that is not code", "run_data"),
    "overflow-stack": ("stack overflow", "overflow_stack"),
    "overflow-thread-stack": ("stack overflow", "overflow_stack"),
    "overflow-fiber-stack": ("stack overflow", "overflow_stack"),
    "overflow-boot-stack": ("stack overflow", "overflow_stack"),
    "overflow-idle-stack": ("stack overflow", "overflow_stack"),
    **{f"overflow-trap-stack-{slot}": ("stack overflow", "overflow_stack") for slot in range(1, 8)},
    "divide": ("divide error", "divide"),
    "abort": ("abort", "call_abort"),
    "assert": ("abort", "fail_assertion"),
    "throw": ("abort", "throw_uncaught"),
    "unknown-call": ("system call that the libc shim does not serve: socket, number 41", "unknown_call"),
    "use-after-unmap": ("access to unmapped memory", "use_after_unmap"),
    "double-fault": ("double fault", "double_fault"),
    "bad-opcode": ("invalid opcode", "bad_opcode"),
    "touch-too-much": ("out of memory: no frame for demand-zero memory", "touch_too_much"),
    "write-optimistic": ("access to unmapped memory, write to", "write_optimistic"),
}


def qemu_status(code):
    """What QEMU's isa-debug-exit makes of a guest's exit code (kernel/kernel.h)."""
    return (code + 1) << 1 | 1


def command(program, argument, machine="q35", extra=(), memory="64M"):
    return ["qemu-system-x86_64", "-machine", machine, *ACCEL, "-smp", "2", "-m", memory, "-nodefaults",
            "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-net", "none", *extra,
            "-kernel", program, "-append", f"kernel_fault {argument}"]


def boot(program, argument, machine="q35", debug_exit=True, memory="64M"):
    extra = ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"] if debug_exit else []
    run = subprocess.run(command(program, argument, machine, extra, memory), stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, errors="replace", timeout=120)
    return run.returncode, run.stdout + run.stderr


def check_fault(program, fault):
    heading, function = FAULTS[fault]
    status, output = boot(program, fault)
    problems = []
    if status != qemu_status(PANIC):
        problems.append(f"exit status {status}")
    panic = re.search(r"kelda: panic on cpu \d+ after \d+ ms: .*", output)
    if not panic or heading not in panic.group(0):
        problems.append(f"heading is not {heading!r}")
    if f" kelda::kernel_fault::{function}+0x" not in output:
        problems.append(f"no {function} in the backtrace")
    if fault == "overflow-fiber-stack" and "cpu 0: glutton" not in output:
        problems.append("the fiber's name is missing")
    if fault != "overflow-thread-stack" and f" {OTHER}+0x" not in output:
        problems.append("no backtrace of the other CPU")
    if " main+0x" not in output and " kelda::kernel_fault::run" not in output and "overflow" not in fault:
        problems.append("the backtrace does not reach main")
    if "rip " not in output or "kelda: end of panic report" not in output:
        problems.append("the report is not complete")
    return problems, output


def check_exit_codes(program):
    problems, output = [], ""
    for machine in ("q35", "pc", "microvm,isa-serial=on", "microvm,isa-serial=on,acpi=off"):
        status, output = boot(program, "exit-7", machine)
        if status != qemu_status(7):
            problems.append(f"{machine}: exit status {status} instead of {qemu_status(7)}")
        # Without the debug device the machine powers off: QEMU ends by itself.
        status, output = boot(program, "exit-7", machine, debug_exit=False)
        if status != 0:
            problems.append(f"{machine}: power-off gives status {status}")
    return problems, output


def check_small_memory(program):
    """Too little memory is said; what the program needs is enough for it to run."""
    status, output = boot(program, "exit-7", memory="6M")
    problems = [] if status == qemu_status(PANIC) and "too little memory" in output else [f"6 MiB: status {status}"]
    status, output = boot(program, "exit-7", memory="16M")
    if status != qemu_status(7):
        problems.append(f"16 MiB: status {status}")
    return problems, output


def with_monitor(program, machine, commands):
    """Boots the hanging program, sends monitor commands once it runs, and returns QEMU's status and output."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "qmp")
        extra = ["-qmp", f"unix:{path},server=on,wait=off", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
        process = subprocess.Popen(command(program, "hang", machine, extra), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        try:
            line = process.stdout.readline()
            if "waiting" not in line:
                return None, line
            monitor = socket.socket(socket.AF_UNIX)
            monitor.connect(path)
            stream = monitor.makefile("rw")
            stream.readline()
            for name in ("qmp_capabilities", *commands):
                stream.write(json.dumps({"execute": name}) + "\n")
                stream.flush()
            output, _ = process.communicate(timeout=60)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, "hangs"
        finally:
            process.kill()
            process.wait()


def check_power_button(program, machine):
    """Without a handler of the program's own, the button ends the machine, cleanly."""
    status, output = with_monitor(program, machine, ["system_powerdown"])
    return ([] if status == qemu_status(0) else [f"status {status}"]), output


def check_nmi(program):
    """A hanging machine shows what it does."""
    status, output = with_monitor(program, "q35", ["inject-nmi"])
    problems = []
    if status != qemu_status(PANIC):
        problems.append(f"exit status {status}")
    for wanted in ("asked for by the host", OTHER, "main+0x", "kelda: end of panic report"):
        if wanted not in output:
            problems.append(f"no {wanted!r}")
    if output.count("\ncpu ") != 2:
        problems.append("not both CPUs")
    return problems, output


def main():
    program = sys.argv[1]
    checks = {fault: (check_fault, program, fault) for fault in FAULTS}
    checks["exit codes"] = (check_exit_codes, program)
    for machine in ("q35", "pc", "microvm,isa-serial=on"):
        checks[f"power button {machine}"] = (check_power_button, program, machine)
    checks["small memory"] = (check_small_memory, program)
    checks["nmi"] = (check_nmi, program)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = {name: pool.submit(*check) for name, check in checks.items()}
        for name, result in results.items():
            problems, output = result.result()
            print(f"{name}: {'ok' if not problems else '; '.join(problems)}", flush=True)
            if problems:
                print(output)
                failed += 1
    sys.exit(1 if failed else 0)


main()
