// From the hypervisor's PVH entry (32-bit, paging off; Xen "x86/HVM direct boot ABI") and from a start-up IPI (16-bit)
// to 64-bit C++. Needs: the image at its link address below 4 GiB, identity = physical.

#include "kernel/boot_constants.h"

  .section .note.Xen, "a", @note
  .balign 4
  .long 4, 8, 18            // name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
  .asciz "Xen"
  .quad kelda_pvh_entry

  .section .bss.boot, "aw", @nobits
  .balign 4096
  .globl kelda_top_table
kelda_top_table: .skip 4096        // the page tables' root for the life of the machine
kelda_boot_pdpt: .skip 4096
kelda_boot_pds:  .skip 4 * 4096    // identity map of 4 GiB, until paging.cc has built the real one
  .globl kelda_boot_stack_guard, kelda_boot_stack
kelda_boot_stack_guard: .skip 4096 // not mapped by paging.cc
  .skip 16384
kelda_boot_stack:

  .section .rodata
  .balign 8
kelda_boot_gdt:
  .quad 0
  .quad 0x00af9b000000ffff         // 0x08: 64-bit code
  .quad 0x00cf93000000ffff         // 0x10: data
  .quad 0x00cf9b000000ffff         // 0x18: 32-bit code
kelda_boot_gdt_pointer:
  .word . - kelda_boot_gdt - 1
  .long kelda_boot_gdt

  .text
  .code32
  .globl kelda_pvh_entry
  .type kelda_pvh_entry, @function
kelda_pvh_entry:
  cli
  cld
  mov $kelda_boot_stack, %esp
  mov %ebx, %edi                   // physical address of the start info
  rdtsc
  mov %eax, kelda_entry_tsc
  mov %edx, kelda_entry_tsc + 4

  movl $kelda_boot_pdpt + 3, kelda_top_table
  mov $kelda_boot_pds + 3, %eax
  mov $kelda_boot_pdpt, %ebx
  mov $4, %ecx
1:
  mov %eax, (%ebx)
  add $4096, %eax
  add $8, %ebx
  loop 1b
  mov $0x83, %eax                  // present, writable, 2 MiB
  mov $kelda_boot_pds, %ebx
  mov $2048, %ecx
2:
  mov %eax, (%ebx)
  add $0x200000, %eax
  add $8, %ebx
  loop 2b

  lgdt kelda_boot_gdt_pointer
  mov $kelda_top_table, %eax
  mov %eax, %cr3
  mov $BOOT_CR4, %eax
  mov %eax, %cr4
  mov $0xc0000080, %ecx
  xor %edx, %edx
  mov $BOOT_EFER, %eax
  wrmsr
  mov $BOOT_CR0, %eax
  mov %eax, %cr0
  ljmp $0x08, $kelda_boot_64

  .code64
kelda_boot_64:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  xor %eax, %eax
  mov %eax, %fs
  mov %eax, %gs
  mov $kelda_boot_stack, %esp
  mov %edi, %edi
  xor %ebp, %ebp
  call kelda_kernel_start
  ud2
  .size kelda_pvh_entry, . - kelda_pvh_entry

// Other CPUs: this block is copied to TRAMPOLINE_ADDRESS and entered there in real mode.
  .section .rodata
  .balign 16
  .globl kelda_trampoline_begin, kelda_trampoline_end
#define AT(label) (label - kelda_trampoline_begin + TRAMPOLINE_ADDRESS)
  .code16
kelda_trampoline_begin:
  cli
  xor %ax, %ax
  mov %ax, %ds
  lgdtl AT(trampoline_gdt_pointer)
  mov $0x11, %eax
  mov %eax, %cr0
  ljmpl $0x18, $AT(trampoline_32)
  .code32
trampoline_32:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $BOOT_CR4, %eax
  mov %eax, %cr4
  mov $kelda_top_table, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx
  xor %edx, %edx
  mov $BOOT_EFER, %eax
  wrmsr
  mov $BOOT_CR0, %eax
  mov %eax, %cr0
  ljmp $0x08, $AT(trampoline_64)
  .code64
trampoline_64:
  mov $kelda_ap_entry, %eax
  jmp *%rax
  .balign 8
trampoline_gdt:
  .quad 0
  .quad 0x00af9b000000ffff
  .quad 0x00cf93000000ffff
  .quad 0x00cf9b000000ffff
trampoline_gdt_pointer:
  .word . - trampoline_gdt - 1
  .long AT(trampoline_gdt)
kelda_trampoline_end:

  .text
  .type kelda_ap_entry, @function
kelda_ap_entry:
  mov $1, %eax
  lock xadd %eax, kelda_ap_ticket(%rip)
  mov %eax, %edi
  mov kelda_ap_stacks(,%rax,8), %rsp    // filled by smp.cc, one a ticket
  xor %ebp, %ebp
  call kelda_ap_start
  ud2
  .size kelda_ap_entry, . - kelda_ap_entry

  .data
  .balign 8
  .globl kelda_entry_tsc
kelda_entry_tsc: .quad 0
  .globl kelda_ap_ticket
kelda_ap_ticket: .long 0

  .section .note.GNU-stack, "", @progbits
