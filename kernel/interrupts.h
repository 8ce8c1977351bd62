// Interrupt vectors for devices.
//
// Contract. A handler runs on its own stack with interrupts off, on the CPU that its message names. It may set atomic
// flags, write device registers and call wake_cpu(); it must not allocate, block, take a lock that code with interrupts
// on may hold, or touch vector registers - compile its file with kelda_interrupt_context() (kernel/CMakeLists.txt).
// After each handler the CPU counts as woken (cpu.h, C1). Vectors are never given back.
#pragma once

#include <cstdint>

#include "common/result.h"
#include "common/types.h"

namespace kelda::kernel {

using InterruptHandler = void (*)(void* context);

using Vector = std::uint8_t;

// Takes a free vector for `handler`. The same vector may be targeted at any CPU. kBusy when all are taken.
// Thread-safe. `context` must live for ever.
Result<Vector> register_interrupt(InterruptHandler handler, void* context);

// What a device must write, and where, to raise `vector` on CPU `cpu`: the entry of an MSI or MSI-X table.
struct MsiMessage {
  std::uint64_t address;
  std::uint32_t data;
};
MsiMessage msi_message(Vector vector, std::uint32_t cpu);

enum class Trigger : std::uint8_t { kEdge, kLevel };
enum class Polarity : std::uint8_t { kHigh, kLow };
// Routes a wired interrupt (global system interrupt, as ACPI counts them) through the I/O APIC to a CPU and unmasks it.
// kUnsupported when no I/O APIC has that pin.
Result<> route_gsi(std::uint32_t gsi, Vector vector, std::uint32_t cpu, Trigger trigger, Polarity polarity);

// The global system interrupt behind an ISA interrupt line (MADT source overrides).
std::uint32_t gsi_of_isa_irq(std::uint8_t irq);

// Interrupts taken by CPU `cpu` since boot (devices, timer and wake-ups).
std::uint64_t interrupt_count(std::uint32_t cpu);

}  // namespace kelda::kernel
