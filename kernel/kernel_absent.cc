// Stands in for the whole of kernel/ in builds without it (KELDA_BARE=OFF: sanitizers, shared libraries). The program
// can only be a Linux process: running_bare() is false, and no call below can be reached.
#include "common/assert.h"
#include "kernel/acpi.h"
#include "kernel/console.h"
#include "kernel/cpu.h"
#include "kernel/emulation.h"
#include "kernel/host_file.h"
#include "kernel/interrupts.h"
#include "kernel/kernel.h"
#include "kernel/memory.h"
#include "kernel/paging.h"
#include "kernel/random.h"
#include "kernel/time.h"

namespace kelda::kernel {

namespace {
[[noreturn]] void absent() { assertion_failed("this program was built with a kernel", __FILE__, __LINE__); }
}  // namespace

// clang-format off: one line each
bool running_bare() { return false; }
std::string_view command_line() { absent(); }
void exit_vm(int) { absent(); }
void reset_vm() { absent(); }
void panic(const char*) { absent(); }
void set_cpu_describer(const char* (*)(std::uint32_t)) { absent(); }

std::optional<PhysAddr> alloc_frame() { absent(); }
std::optional<PhysAddr> alloc_frames_contiguous(std::size_t, std::size_t) { absent(); }
std::size_t alloc_frames(std::span<PhysAddr>) { absent(); }
void free_frame(PhysAddr) { absent(); }
void free_frames_contiguous(PhysAddr, std::size_t) { absent(); }
void free_frames(std::span<const PhysAddr>) { absent(); }
void zero_frame(PhysAddr) { absent(); }
MemoryStats memory_stats() { absent(); }

Result<VirtAddr> reserve_region(std::size_t) { absent(); }
std::atomic<std::uint64_t>* pte_for(VirtAddr, bool) { absent(); }
Result<> map_page(VirtAddr, PhysAddr, std::uint64_t) { absent(); }
std::optional<PhysAddr> unmap_page(VirtAddr) { absent(); }
std::optional<PhysAddr> translate(const volatile void*) { absent(); }
Result<> populate(const void*, std::size_t) { absent(); }
Result<volatile void*> map_mmio(PhysAddr, std::size_t) { absent(); }
void flush_all_local() { absent(); }
std::uint64_t begin_unmap_epoch() { absent(); }
bool unmap_epoch_passed(std::uint64_t) { absent(); }
void pass_unmap_epoch() { absent(); }
void force_unmap_epoch(std::uint64_t) { absent(); }
Result<> set_optimistic_range(VirtAddr, std::size_t) { absent(); }
std::uint64_t optimistic_fault_count() { absent(); }

std::uint32_t cpu_count() { absent(); }
std::uint32_t this_cpu_index() { absent(); }
void wake_cpu(std::uint32_t) { absent(); }
void halt_until_interrupt_or(std::uint64_t) { absent(); }
bool may_miss_devices() { return false; }
DeviceFence device_fence() { return nullptr; }
bool cpu_is_halted(std::uint32_t) { absent(); }
std::uint64_t cpu_halted_ns(std::uint32_t) { absent(); }

Result<Vector> register_interrupt(InterruptHandler, void*) { absent(); }
MsiMessage msi_message(Vector, std::uint32_t) { absent(); }
Result<> route_gsi(std::uint32_t, Vector, std::uint32_t, Trigger, Polarity) { absent(); }
std::uint32_t gsi_of_isa_irq(std::uint8_t) { absent(); }
std::uint64_t interrupt_count(std::uint32_t) { absent(); }

std::uint64_t monotonic_ns() { absent(); }
std::int64_t wall_clock_ns() { absent(); }
void arm_timer(std::uint64_t) { absent(); }
void disarm_timer() { absent(); }
void delay_ns(std::uint64_t) { absent(); }
ClockInfo clock_info() { absent(); }

void random_fill(MutableBytes) { absent(); }
void add_entropy(Bytes, const char*) { absent(); }
const char* random_source() { absent(); }

void console_write(std::string_view) { absent(); }
std::size_t console_read(char*, std::size_t) { absent(); }

std::optional<PciConfigSpace> pci_config_space() { absent(); }
std::span<const VirtioMmioSlot> virtio_mmio_slots() { absent(); }
std::optional<std::size_t> read_host_file(std::string_view, MutableBytes) { absent(); }
void set_power_button_handler(void (*)(void*), void*) { absent(); }

}  // namespace kelda::kernel
