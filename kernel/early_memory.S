// memcpy, memmove, memset, memcmp and strlen for early.h: general registers only. Simple loops of 8 bytes: string instructions
// are slow under emulation, and nothing here is on a hot path.
  .text

  .globl kelda_early_memcpy, kelda_early_memmove, kelda_early_memset, kelda_early_memcmp
  .type kelda_early_memcpy, @function
  .type kelda_early_memmove, @function
  .type kelda_early_memset, @function
  .type kelda_early_memcmp, @function

// rdi to, rsi from, rdx size
kelda_early_memmove:
  mov %rdi, %rax
  sub %rsi, %rax            // unsigned distance: to - from
  cmp %rdx, %rax
  jae kelda_early_memcpy    // "to" does not lie inside the source: forwards is safe
  mov %rdi, %rax
1:
  cmp $8, %rdx
  jb 2f
  mov -8(%rsi,%rdx), %rcx
  mov %rcx, -8(%rdi,%rdx)
  sub $8, %rdx
  jmp 1b
2:
  test %rdx, %rdx
  jz 3f
  movb -1(%rsi,%rdx), %cl
  movb %cl, -1(%rdi,%rdx)
  dec %rdx
  jmp 2b
3:
  ret
  .size kelda_early_memmove, . - kelda_early_memmove

kelda_early_memcpy:
  mov %rdi, %rax
  xor %r8d, %r8d
1:
  lea 8(%r8), %r9
  cmp %rdx, %r9
  ja 2f
  mov (%rsi,%r8), %rcx
  mov %rcx, (%rdi,%r8)
  mov %r9, %r8
  jmp 1b
2:
  cmp %rdx, %r8
  jae 3f
  movb (%rsi,%r8), %cl
  movb %cl, (%rdi,%r8)
  inc %r8
  jmp 2b
3:
  ret
  .size kelda_early_memcpy, . - kelda_early_memcpy

kelda_early_memset:
  mov %rdi, %rax
  movzbl %sil, %ecx
  movabs $0x0101010101010101, %r8
  imul %r8, %rcx
  xor %r8d, %r8d
1:
  lea 8(%r8), %r9
  cmp %rdx, %r9
  ja 2f
  mov %rcx, (%rdi,%r8)
  mov %r9, %r8
  jmp 1b
2:
  cmp %rdx, %r8
  jae 3f
  movb %cl, (%rdi,%r8)
  inc %r8
  jmp 2b
3:
  ret
  .size kelda_early_memset, . - kelda_early_memset

kelda_early_memcmp:
  xor %ecx, %ecx
1:
  cmp %rdx, %rcx
  jae 2f
  movzbl (%rdi,%rcx), %eax
  movzbl (%rsi,%rcx), %r8d
  inc %rcx
  sub %r8d, %eax
  jz 1b
  ret
2:
  xor %eax, %eax
  ret
  .size kelda_early_memcmp, . - kelda_early_memcmp

  .globl kelda_early_strlen
  .type kelda_early_strlen, @function
kelda_early_strlen:
  xor %eax, %eax
1:
  cmpb $0, (%rdi,%rax)
  je 2f
  inc %rax
  jmp 1b
2:
  ret
  .size kelda_early_strlen, . - kelda_early_strlen

  .section .note.GNU-stack, "", @progbits
