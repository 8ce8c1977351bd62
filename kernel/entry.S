// Ways into the kernel: interrupt and exception stubs, the system call entry, the start of a thread on a CPU.
//
// The program runs in ring 0 and its compiler uses the red zone, the 128 bytes below %rsp. So every vector has an IST
// stack, and the system call entry, which stays on the caller's stack, steps over the red zone first.

  .text

// Trap frame as traps.h declares it, low addresses first: r15 .. rax, vector, error code, rip, cs, rflags, rsp, ss.
  .type kelda_trap_common, @function
kelda_trap_common:
  .cfi_startproc
  .cfi_signal_frame
  .cfi_def_cfa %rsp, 56
  .cfi_offset %rip, -40
  .cfi_offset %rsp, -16
  cld
  push %rax
  push %rbx
  push %rcx
  push %rdx
  push %rsi
  push %rdi
  push %rbp
  push %r8
  push %r9
  push %r10
  push %r11
  push %r12
  push %r13
  push %r14
  push %r15
  .cfi_adjust_cfa_offset 120
  .cfi_rel_offset %rbp, 64
  .cfi_rel_offset %rbx, 104
  .cfi_rel_offset %r12, 24
  .cfi_rel_offset %r13, 16
  .cfi_rel_offset %r14, 8
  .cfi_rel_offset %r15, 0
  mov %rsp, %rdi
  mov %rsp, %rbx
  and $-16, %rsp
  .cfi_def_cfa_register %rbx
  xor %ebp, %ebp
  call kelda_trap
  mov %rbx, %rsp
  .cfi_def_cfa_register %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %r11
  pop %r10
  pop %r9
  pop %r8
  pop %rbp
  pop %rdi
  pop %rsi
  pop %rdx
  pop %rcx
  pop %rbx
  pop %rax
  add $16, %rsp
  iretq
  .cfi_endproc
  .size kelda_trap_common, . - kelda_trap_common

// 256 stubs of 16 bytes. Vectors 8, 10-14, 17, 21, 29 and 30 push an error code themselves.
  .balign 16
  .globl kelda_trap_stubs
  .type kelda_trap_stubs, @function
kelda_trap_stubs:
  vector = 0
  .rept 256
  .balign 16
  .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
  push $0
  .endif
  push $vector
  jmp kelda_trap_common
  vector = vector + 1
  .endr
  .size kelda_trap_stubs, . - kelda_trap_stubs

// SYSCALL in ring 0: rcx = return address, r11 = flags, stack unchanged. All registers but rax, rcx and r11 are kept.
// Syscall frame as shim.h declares it, low addresses first: r15 r14 r13 r12 r10 r9 r8 rdi rsi rdx rbx rax, rbp, rip, rflags.
  .globl kelda_syscall_entry
  .type kelda_syscall_entry, @function
kelda_syscall_entry:
  .cfi_startproc
  .cfi_signal_frame
  .cfi_def_cfa %rsp, 0
  .cfi_register %rip, %rcx
  lea -128(%rsp), %rsp
  .cfi_adjust_cfa_offset 128
  push %r11
  push %rcx
  push %rbp
  .cfi_adjust_cfa_offset 24
  .cfi_rel_offset %rip, 8
  .cfi_rel_offset %rbp, 0
  mov %rsp, %rbp            // a frame that a backtrace can walk: saved rbp, return address
  .cfi_def_cfa_register %rbp
  push %rax
  push %rbx
  push %rdx
  push %rsi
  push %rdi
  push %r8
  push %r9
  push %r10
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, %rdi
  and $-16, %rsp
  call kelda_shim_dispatch  // result in rax
  .globl kelda_syscall_dispatched
kelda_syscall_dispatched:   // by this address backtrace.cc knows the frame
  lea -96(%rbp), %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %r10
  pop %r9
  pop %r8
  pop %rdi
  pop %rsi
  pop %rdx
  pop %rbx
  add $8, %rsp
  pop %rbp
  .cfi_def_cfa %rsp, 144
  pop %rcx
  popfq
  lea 128(%rsp), %rsp
  jmp *%rcx
  .cfi_endproc
  .size kelda_syscall_entry, . - kelda_syscall_entry

// [[noreturn]] void kelda_enter_thread(const SyscallFrame*, void* stack): goes on where the frame's system call returns,
// with all its registers, rax = 0 and the given stack. Interrupts are on afterwards.
  .globl kelda_enter_thread
  .type kelda_enter_thread, @function
kelda_enter_thread:
  mov %rsi, %rsp
  mov 0(%rdi), %r15
  mov 8(%rdi), %r14
  mov 16(%rdi), %r13
  mov 24(%rdi), %r12
  mov 32(%rdi), %r10
  mov 40(%rdi), %r9
  mov 48(%rdi), %r8
  mov 64(%rdi), %rsi
  mov 72(%rdi), %rdx
  mov 80(%rdi), %rbx
  mov 96(%rdi), %rbp
  mov 104(%rdi), %rcx
  mov 56(%rdi), %rdi
  xor %eax, %eax
  sti
  jmp *%rcx
  .size kelda_enter_thread, . - kelda_enter_thread

// [[noreturn]] void kelda_enter_program(void* stack, void (*entry)()): the C library's _start, as Linux enters it.
  .globl kelda_enter_program
  .type kelda_enter_program, @function
kelda_enter_program:
  mov %rdi, %rsp
  mov %rsi, %rcx
  xor %eax, %eax
  xor %edx, %edx
  xor %ebp, %ebp
  sti
  jmp *%rcx
  .size kelda_enter_program, . - kelda_enter_program

// [[noreturn]] void kelda_switch_stack(void* stack, void (*function)()): leaves the current stack for good.
  .globl kelda_switch_stack
  .type kelda_switch_stack, @function
kelda_switch_stack:
  mov %rdi, %rsp
  xor %ebp, %ebp
  call *%rsi
  ud2
  .size kelda_switch_stack, . - kelda_switch_stack

  .section .note.GNU-stack, "", @progbits
