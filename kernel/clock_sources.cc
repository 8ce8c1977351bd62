#include "kernel/clock_sources.h"

#include <cstring>

#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/machine.h"
#include "kernel/machine_info.h"

namespace kelda::kernel {

namespace {

constexpr std::uint16_t kPitChannel0 = 0x40, kPitCommand = 0x43;
constexpr std::uint8_t kRateGenerator = 0x34, kLatchChannel0 = 0x00;

constexpr std::uint32_t kHypervisorLeaf = 0x4000'0000;

bool has_hypervisor_leaf(std::uint32_t leaf) {
  constexpr std::uint32_t kHypervisorBit = 1u << 31;
  return (cpuid(1).ecx & kHypervisorBit) && cpuid(kHypervisorLeaf).eax >= leaf;
}

bool is_kvm() {
  if (!has_hypervisor_leaf(kHypervisorLeaf + 1)) return false;
  auto leaf = cpuid(kHypervisorLeaf);
  return leaf.ebx == 0x4b4d'564b && leaf.ecx == 0x564b'4d56 && leaf.edx == 0x4d;  // "KVMKVMKVM"
}

// As KVM writes them; guarded by the version (odd: being written).
struct KvmTime {
  std::uint32_t version, padding;
  std::uint64_t tsc, system_ns;
  std::uint32_t multiplier;
  std::int8_t shift;
  std::uint8_t flags, padding2[2];
};
static_assert(sizeof(KvmTime) == 32);
struct KvmWall {
  std::uint32_t version, seconds, nanoseconds;
};

alignas(64) constinit KvmTime g_kvm_time{};
alignas(16) constinit KvmWall g_kvm_wall{};

std::uint8_t read_cmos(std::uint8_t reg) {
  out8(0x70, reg);
  return in8(0x71);
}

// A clock without a century register shows something else there: then 70 to 99 are years of the last century, as POSIX
// reads two digits but for the first year that can be counted.
std::int64_t full_year(unsigned century, unsigned year_of_century) {
  if (century < 19 || century > 21) century = year_of_century >= 70 ? 19 : 20;
  return std::int64_t{century} * 100 + year_of_century;
}

// Days since 1970-01-01 of a civil date, by counting leap years from March on.
std::int64_t days_since_epoch(std::int64_t year, unsigned month, unsigned day) {
  year -= month <= 2;
  std::int64_t era = year / 400;
  auto year_of_era = static_cast<unsigned>(year - era * 400);
  unsigned day_of_year = (153 * (month + (month > 2 ? -3u : 9u)) + 2) / 5 + day - 1;
  unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + static_cast<std::int64_t>(day_of_era) - 719468;
}

}  // namespace

void start_pit() {
  out8(kPitCommand, kRateGenerator);
  out8(kPitChannel0, 0);  // 65536
  out8(kPitChannel0, 0);
}

ClockSample sample_clocks(bool with_apic) {
  InterruptsOff off;
  ClockSample best;
  std::uint64_t best_length = ~std::uint64_t{0};
  for (int attempt = 0; attempt < 4; ++attempt) {
    std::uint64_t begin = read_tsc();
    out8(kPitCommand, kLatchChannel0);
    std::uint32_t apic = with_apic ? apic_timer_ticks_left() : 0;
    std::uint64_t end = read_tsc();
    std::uint16_t low = in8(kPitChannel0);
    auto pit = static_cast<std::uint16_t>(low | in8(kPitChannel0) << 8);
    if (end - begin >= best_length) continue;
    best_length = end - begin;
    best = {begin + (end - begin) / 2, pit, apic};
  }
  return best;
}

std::optional<KvmClock> read_kvm_clock() {
  constexpr std::uint32_t kFeatureNewMsrs = 1u << 3, kMsrWall = 0x4b56'4d00, kMsrSystemTime = 0x4b56'4d01;
  if (!is_kvm() || !(cpuid(kHypervisorLeaf + 1).eax & kFeatureNewMsrs)) return std::nullopt;
  write_msr(kMsrWall, reinterpret_cast<std::uint64_t>(&g_kvm_wall));
  write_msr(kMsrSystemTime, reinterpret_cast<std::uint64_t>(&g_kvm_time) | 1);
  KvmTime time;
  do {
    asm volatile("" ::: "memory");
    std::memcpy(&time, &g_kvm_time, sizeof time);
    asm volatile("" ::: "memory");
  } while ((time.version & 1) || time.version != *const_cast<volatile std::uint32_t*>(&g_kvm_time.version));
  write_msr(kMsrSystemTime, 0);  // only its constants are used
  if (time.multiplier == 0) return std::nullopt;
  // ns = (ticks << shift) * multiplier >> 32, so the rate is 10^9 << 32 over the multiplier, shifted back.
  std::uint64_t hz = (std::uint64_t{1'000'000'000} << 32) / time.multiplier;
  hz = time.shift >= 0 ? hz >> time.shift : hz << -time.shift;
  std::uint64_t ticks = read_tsc() - time.tsc;
  ticks = time.shift >= 0 ? ticks << time.shift : ticks >> -time.shift;
  auto since_boot =
      time.system_ns + static_cast<std::uint64_t>(static_cast<unsigned __int128>(ticks) * time.multiplier >> 32);
  std::int64_t wall = std::int64_t{g_kvm_wall.seconds} * 1'000'000'000 + g_kvm_wall.nanoseconds;
  return KvmClock{hz, wall + static_cast<std::int64_t>(since_boot)};
}

std::optional<std::uint64_t> tsc_hz_from_cpuid() {
  if (cpuid(0).eax >= 0x15) {
    auto leaf = cpuid(0x15);
    if (leaf.eax && leaf.ebx && leaf.ecx) return std::uint64_t{leaf.ecx} * leaf.ebx / leaf.eax;
  }
  if (has_hypervisor_leaf(kHypervisorLeaf + 0x10)) {
    if (std::uint32_t khz = cpuid(kHypervisorLeaf + 0x10).eax) return std::uint64_t{khz} * 1000;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> apic_hz_from_cpuid() {
  if (has_hypervisor_leaf(kHypervisorLeaf + 0x10)) {
    if (std::uint32_t khz = cpuid(kHypervisorLeaf + 0x10).ebx) return std::uint64_t{khz} * 1000;
  }
  // KVM's APIC bus runs at one cycle a nanosecond.
  if (is_kvm()) return 1'000'000'000;
  return std::nullopt;
}

std::optional<std::int64_t> read_cmos_clock() {
  constexpr std::uint8_t kUpdating = 0x80, kBinary = 4, k24Hours = 2;
  if (read_cmos(0x0b) == 0xff) return std::nullopt;
  std::uint8_t fields[7], again[7];
  // Seconds, minutes, hours, day, month, year, century.
  const std::uint8_t registers[7] = {0, 2, 4, 7, 8, 9, g_machine.century_register};
  auto read_all = [&](std::uint8_t* out) {
    for (int spins = 0; (read_cmos(0x0a) & kUpdating) && spins < 10'000; ++spins) pause();
    for (int i = 0; i < 7; ++i) out[i] = read_cmos(registers[i]);
  };
  // Twice the same: no update came in between.
  read_all(fields);
  for (int attempt = 0; attempt < 4; ++attempt) {
    read_all(again);
    if (std::memcmp(fields, again, sizeof fields) == 0) break;
    std::memcpy(fields, again, sizeof fields);
  }
  std::uint8_t mode = read_cmos(0x0b);
  bool afternoon = !(mode & k24Hours) && (fields[2] & 0x80);
  fields[2] &= 0x7f;
  auto number = [&](std::uint8_t raw) -> unsigned { return mode & kBinary ? raw : (raw >> 4) * 10u + (raw & 15u); };
  unsigned hour = number(fields[2]);
  if (!(mode & k24Hours)) hour = hour % 12 + (afternoon ? 12 : 0);
  const std::int64_t year = full_year(number(fields[6]), number(fields[5]));
  std::int64_t days = days_since_epoch(year, number(fields[4]), number(fields[3]));
  return ((days * 24 + hour) * 60 + number(fields[1])) * 60 + number(fields[0]);
}

}  // namespace kelda::kernel
