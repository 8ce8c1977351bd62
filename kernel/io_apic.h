// I/O APICs and the legacy interrupt controllers. Private to kernel/; devices use route_gsi() in interrupts.h.
#pragma once

namespace kelda::kernel {
// Masks every wired interrupt: both 8259s and all I/O APIC pins (as acpi.cc or mp_table.cc listed them).
void init_io_apics();
}  // namespace kelda::kernel
