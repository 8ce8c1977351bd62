#!/usr/bin/env bash
# boot.sh PROGRAM [ARGUMENT ...]: boots a bootable program in QEMU and exits with the guest's exit code.
# Extra QEMU flags may stand in KELDA_QEMU_FLAGS; memory in KELDA_QEMU_MEMORY (default 256M).
set -u
program=$1
shift
accel=tcg,thread=multi cpu=max,-erms
if [ -w /dev/kvm ] && grep -qE '^flags.*\b(vmx|svm)\b' /proc/cpuinfo; then accel=kvm cpu=host; fi
# shellcheck disable=SC2086
qemu-system-x86_64 -machine "${KELDA_QEMU_MACHINE:-q35}" -accel $accel -cpu $cpu -smp 2 -m "${KELDA_QEMU_MEMORY:-256M}" \
  -nodefaults -no-user-config -display none -serial stdio -no-reboot -net none \
  -device isa-debug-exit,iobase=0xf4,iosize=0x04 ${KELDA_QEMU_FLAGS:-} \
  -kernel "$program" -append "$(basename "$program") $*" </dev/null
status=$?
# isa-debug-exit reports (code << 1) | 1; an even status comes from QEMU itself or from a plain power-off.
if [ $((status & 1)) -eq 1 ] && [ "$status" -lt 256 ]; then exit $((status >> 1)); fi
exit "$status"
