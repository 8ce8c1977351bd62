// Local APIC of the calling CPU (Intel SDM vol. 3, chapter 11): x2APIC through MSRs where present, else memory-mapped.
// Private to kernel/.
#pragma once

#include <cstdint>

namespace kelda::kernel {

// Finds out which kind there is; once, on the boot CPU, after paging.
void init_apic();
// Turns the calling CPU's APIC on.
void enable_apic_this_cpu();
std::uint32_t apic_id_of_this_cpu();

void end_of_interrupt();
void send_interrupt(std::uint32_t apic_id, std::uint8_t vector);
void send_nmi(std::uint32_t apic_id);  // only to a CPU that has started: it would wake one that has not
void send_init(std::uint32_t apic_id);
void send_startup(std::uint32_t apic_id, std::uint8_t page_number);

// One-shot timer: an interrupt after `ticks` of the APIC clock divided by kTimerDivider; 0 stops it.
inline constexpr std::uint32_t kTimerDivider = 16;
void start_apic_timer(std::uint32_t ticks);
std::uint32_t apic_timer_ticks_left();
// Switches the timer to deadline mode, in which write_msr(kMsrTscDeadline) arms it.
void use_tsc_deadline_timer();
void use_one_shot_timer();

}  // namespace kelda::kernel
