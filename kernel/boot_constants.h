// Shared by boot.S and C++: control-register values that every CPU starts with, and where the trampoline lies.
#pragma once

// PAE, global pages, OSFXSR and OSXMMEXCPT (SSE).
#define BOOT_CR4 0x6a0
// SYSCALL, long mode, no-execute.
#define BOOT_EFER 0x901
// Paging, write protection in ring 0, numeric errors by exception, MP and PE; EM and TS clear.
#define BOOT_CR0 0x80010033
// Real-mode page number times 4096: a start-up IPI can only name pages below 1 MiB.
#define TRAMPOLINE_ADDRESS 0x8000
