// Single instructions and processor constants (Intel SDM, AMD APM). Private to kernel/.
#pragma once

#include <cstdint>

namespace kelda::kernel {

inline void out8(std::uint16_t port, std::uint8_t value) {
  asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}
inline void out16(std::uint16_t port, std::uint16_t value) {
  asm volatile("outw %0, %1" ::"a"(value), "Nd"(port));
}
inline void out32(std::uint16_t port, std::uint32_t value) {
  asm volatile("outl %0, %1" ::"a"(value), "Nd"(port));
}
inline std::uint8_t in8(std::uint16_t port) {
  std::uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
inline std::uint16_t in16(std::uint16_t port) {
  std::uint16_t value;
  asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
inline std::uint32_t in32(std::uint16_t port) {
  std::uint32_t value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

inline std::uint64_t read_msr(std::uint32_t msr) {
  std::uint32_t low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return std::uint64_t{high} << 32 | low;
}
inline void write_msr(std::uint32_t msr, std::uint64_t value) {
  asm volatile("wrmsr" ::"c"(msr), "a"(static_cast<std::uint32_t>(value)), "d"(static_cast<std::uint32_t>(value >> 32))
               : "memory");
}

inline constexpr std::uint32_t kMsrApicBase = 0x1b;
inline constexpr std::uint32_t kMsrTscDeadline = 0x6e0;
inline constexpr std::uint32_t kMsrX2ApicFirst = 0x800;
inline constexpr std::uint32_t kMsrEfer = 0xc000'0080;
inline constexpr std::uint32_t kMsrStar = 0xc000'0081;
inline constexpr std::uint32_t kMsrLstar = 0xc000'0082;
inline constexpr std::uint32_t kMsrFlagMask = 0xc000'0084;
inline constexpr std::uint32_t kMsrFsBase = 0xc000'0100;
inline constexpr std::uint32_t kMsrGsBase = 0xc000'0101;

struct CpuidResult {
  std::uint32_t eax, ebx, ecx, edx;
};
inline CpuidResult cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0) {
  CpuidResult r;
  asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
  return r;
}

inline std::uint64_t read_tsc() {
  std::uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
  return std::uint64_t{high} << 32 | low;
}

inline std::uint64_t read_cr0() {
  std::uint64_t v;
  asm volatile("mov %%cr0, %0" : "=r"(v));
  return v;
}
inline std::uint64_t read_cr2() {
  std::uint64_t v;
  asm volatile("mov %%cr2, %0" : "=r"(v));
  return v;
}
inline std::uint64_t read_cr3() {
  std::uint64_t v;
  asm volatile("mov %%cr3, %0" : "=r"(v));
  return v;
}
inline std::uint64_t read_cr4() {
  std::uint64_t v;
  asm volatile("mov %%cr4, %0" : "=r"(v));
  return v;
}
inline void write_cr0(std::uint64_t v) {
  asm volatile("mov %0, %%cr0" ::"r"(v) : "memory");
}
inline void write_cr3(std::uint64_t v) {
  asm volatile("mov %0, %%cr3" ::"r"(v) : "memory");
}
inline void write_cr4(std::uint64_t v) {
  asm volatile("mov %0, %%cr4" ::"r"(v) : "memory");
}

inline constexpr std::uint64_t kFlagTrap = 1u << 8;
inline constexpr std::uint64_t kFlagInterrupt = 1u << 9;
inline constexpr std::uint64_t kFlagDirection = 1u << 10;
inline constexpr std::uint64_t kFlagAlignment = 1u << 18;

inline void pause() {
  __builtin_ia32_pause();
}
[[noreturn]] inline void halt_forever() {
  for (;;) asm volatile("cli; hlt");
}

}  // namespace kelda::kernel
