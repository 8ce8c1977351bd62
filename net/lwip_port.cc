#include "net/lwip_port.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "common/assert.h"
#include "common/checksum.h"
#include "lwip/mem.h"
#include "lwip/sys.h"
#include "lwip/timeouts.h"
#include "net/lwip/hooks.h"
#include "runtime/core.h"

namespace kelda::net::lwip {
namespace {

// Relaxed throughout: a count that steers, nothing is published through it.
std::atomic<std::uint64_t> used_bytes{0};
std::atomic<std::uint64_t> limit_bytes{16ull << 20};

// lwIP cannot live without its few timers: they are granted beyond the limit. Only the descriptions of segments are as
// small, and those are worth nothing without a pbuf, which is not granted.
constexpr std::size_t kTimerBytes = 32;
static_assert(LWIP_MEM_ALIGN_SIZE(sizeof(sys_timeo)) <= kTimerBytes);

}  // namespace

void set_memory_limit(std::uint64_t bytes) { limit_bytes.store(bytes, std::memory_order_relaxed); }
std::uint64_t memory_used_bytes() { return used_bytes.load(std::memory_order_relaxed); }
bool memory_is_scarce() { return memory_used_bytes() > limit_bytes.load(std::memory_order_relaxed) / 2; }

}  // namespace kelda::net::lwip

using namespace kelda;

extern "C" {

void* kelda_lwip_malloc(std::size_t size_bytes) {
  using namespace net::lwip;
  const bool over = memory_used_bytes() + size_bytes > limit_bytes.load(std::memory_order_relaxed);
  if (over && size_bytes > kTimerBytes) return nullptr;
  void* memory = std::malloc(size_bytes);
  if (memory != nullptr) used_bytes.fetch_add(malloc_usable_size(memory), std::memory_order_relaxed);
  return memory;
}

void* kelda_lwip_calloc(std::size_t count, std::size_t size_bytes) {
  void* memory = kelda_lwip_malloc(count * size_bytes);
  if (memory != nullptr) std::memset(memory, 0, count * size_bytes);
  return memory;
}

void kelda_lwip_free(void* memory) {
  if (memory == nullptr) return;
  net::lwip::used_bytes.fetch_sub(malloc_usable_size(memory), std::memory_order_relaxed);
  std::free(memory);
}

void kelda_lwip_assert(const char* message, const char* file, int line) { assertion_failed(message, file, line); }

std::uint32_t kelda_lwip_random(void) { return static_cast<std::uint32_t>(runtime::random_u64()); }

u32_t sys_now(void) { return static_cast<u32_t>(runtime::now_ns() / 1'000'000); }

// A clock of 4 us plus a keyed hash of the connection's four numbers: connections of one pair of endpoints follow each
// other in sequence space, and others learn nothing about them.
u32_t kelda_lwip_isn(const ip_addr_t* local_ip, u16_t local_port, const ip_addr_t* remote_ip, u16_t remote_port) {
  static const std::uint64_t secret = runtime::random_u64();
  const std::uint32_t tuple[] = {ip_addr_get_ip4_u32(local_ip), ip_addr_get_ip4_u32(remote_ip),
                                 std::uint32_t{local_port} << 16 | remote_port};
  const std::uint64_t hash = checksum64(std::as_bytes(std::span(tuple)), secret);
  return static_cast<u32_t>(hash + runtime::now_ns() / 4000);
}

// The Internet checksum (RFC 1071), not inverted, in the byte order of the data: four bytes a step into 64 bits.
std::uint16_t kelda_lwip_checksum(const void* data, int size_bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint64_t sum = 0;
  int left = size_bytes;
  for (; left >= 8; left -= 8, p += 8) {
    std::uint32_t words[2];
    std::memcpy(words, p, 8);
    sum += std::uint64_t{words[0]} + words[1];
  }
  for (; left >= 2; left -= 2, p += 2) {
    std::uint16_t word;
    std::memcpy(&word, p, 2);
    sum += word;
  }
  if (left > 0) sum += *p;
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

}  // extern "C"
