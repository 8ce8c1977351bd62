#!/usr/bin/env bash
# boot.sh PROGRAM [ARGUMENT ...]: boots a bootable program in QEMU and exits with the guest's exit code.
# Extra QEMU flags may stand in KELDA_QEMU_FLAGS; memory in KELDA_QEMU_MEMORY (default 512M).
set -u
program=$1
shift
accel=tcg,thread=multi cpu=max,-erms
if [ -w /dev/kvm ] && grep -qE '^flags.*\b(vmx|svm)\b' /proc/cpuinfo; then accel=kvm cpu=host; fi
# shellcheck disable=SC2086
qemu-system-x86_64 -machine "${KELDA_QEMU_MACHINE:-q35}" -accel $accel -cpu $cpu -smp 2 -m "${KELDA_QEMU_MEMORY:-512M}" \
  -nodefaults -no-user-config -display none -serial stdio -no-reboot -net none \
  -device isa-debug-exit,iobase=0xf4,iosize=0x04 ${KELDA_QEMU_FLAGS:-} \
  -kernel "$program" -append "$(basename "$program") $*" </dev/null
status=$?
# The guest's code comes as (code + 1) << 1 | 1. 1 is QEMU's own failure; anything even means that the guest ended without
# saying how it went (a triple fault, a plain power-off): never a success.
if [ $((status & 1)) -eq 1 ] && [ $status -ge 3 ]; then exit $(((status >> 1) - 1)); fi
echo "boot.sh: the guest ended without an exit code (QEMU status $status)" >&2
exit 125
