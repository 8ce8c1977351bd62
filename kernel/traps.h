// Exceptions and interrupts as the stubs in entry.S deliver them. Private to kernel/.
#pragma once

#include <cstdint>

namespace kelda::kernel {

// Pushed by entry.S, low addresses first.
struct TrapFrame {
  std::uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
  std::uint64_t vector, error;
  std::uint64_t rip, cs, rflags, rsp, ss;
};
static_assert(sizeof(TrapFrame) == 22 * 8);

inline constexpr std::uint8_t kVectorDivide = 0;
inline constexpr std::uint8_t kVectorDebug = 1;
inline constexpr std::uint8_t kVectorNmi = 2;
inline constexpr std::uint8_t kVectorDoubleFault = 8;
inline constexpr std::uint8_t kVectorPageFault = 14;
inline constexpr std::uint8_t kVectorMachineCheck = 18;
inline constexpr std::uint8_t kFirstDeviceVector = 48;
inline constexpr std::uint8_t kLastDeviceVector = 239;
inline constexpr std::uint8_t kVectorTimer = 240;
inline constexpr std::uint8_t kVectorWake = 241;
inline constexpr std::uint8_t kVectorFlush = 242;
inline constexpr std::uint8_t kVectorSpurious = 255;

// Page-fault error code (Intel SDM vol. 3, 4.7).
inline constexpr std::uint64_t kFaultPresent = 1u << 0;
inline constexpr std::uint64_t kFaultWrite = 1u << 1;
inline constexpr std::uint64_t kFaultReserved = 1u << 3;
inline constexpr std::uint64_t kFaultFetch = 1u << 4;

// Calls the registered handler of a device vector (interrupts.cc). False when there is none.
bool call_interrupt_handler(std::uint8_t vector);
// Handles #PF, or panics (page_fault.cc).
void handle_page_fault(TrapFrame& frame);

// optimistic.cc: a load in the optimistic range through an empty entry; false when the fault is none of these.
bool begin_optimistic_step(TrapFrame& frame, std::uint64_t address);
// #DB after that one instruction; false when this CPU is not stepping.
bool end_optimistic_step(TrapFrame& frame);

}  // namespace kelda::kernel
