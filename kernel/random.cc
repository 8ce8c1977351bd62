#include "kernel/random.h"

#include <cstring>

#include "kernel/internal.h"
#include "kernel/machine.h"
#include "kernel/spinlock.h"

namespace kelda::kernel {

namespace {

constexpr std::size_t kKeyWords = 8, kBlockWords = 16;

constinit std::uint32_t g_key[kKeyWords] = {};
constinit std::uint64_t g_counter = 0;
constinit const char* g_source = "time-stamp counter only";
constinit SpinLock g_lock;

std::uint32_t rotate(std::uint32_t value, int bits) {
  return value << bits | value >> (32 - bits);
}

void quarter_round(std::uint32_t* s, int a, int b, int c, int d) {
  s[a] += s[b];
  s[d] = rotate(s[d] ^ s[a], 16);
  s[c] += s[d];
  s[b] = rotate(s[b] ^ s[c], 12);
  s[a] += s[b];
  s[d] = rotate(s[d] ^ s[a], 8);
  s[c] += s[d];
  s[b] = rotate(s[b] ^ s[c], 7);
}

// RFC 8439, 2.3, with a 64-bit counter.
void chacha20_block(std::uint32_t (&out)[kBlockWords]) {
  std::uint32_t state[kBlockWords] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  for (std::size_t i = 0; i < kKeyWords; ++i) state[4 + i] = g_key[i];
  state[12] = static_cast<std::uint32_t>(g_counter);
  state[13] = static_cast<std::uint32_t>(g_counter >> 32);
  ++g_counter;
  std::uint32_t working[kBlockWords];
  for (std::size_t i = 0; i < kBlockWords; ++i) working[i] = state[i];
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 4; ++i) quarter_round(working, i, 4 + i, 8 + i, 12 + i);
    for (int i = 0; i < 4; ++i) quarter_round(working, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
  }
  for (std::size_t i = 0; i < kBlockWords; ++i) out[i] = working[i] + state[i];
}

// The next block becomes the key: what was given out cannot be computed from the state any more.
void erase_key() {
  std::uint32_t block[kBlockWords];
  chacha20_block(block);
  for (std::size_t i = 0; i < kKeyWords; ++i) g_key[i] = block[i];
}

void mix(const void* seed, std::size_t size_bytes) {
  auto* bytes = static_cast<const std::uint8_t*>(seed);
  auto* key = reinterpret_cast<std::uint8_t*>(g_key);
  for (std::size_t i = 0; i < size_bytes; ++i) {
    key[i % sizeof g_key] ^= bytes[i];
    if (i % sizeof g_key == sizeof g_key - 1) erase_key();
  }
  erase_key();
}

// May fail now and then; the manual asks for a few retries.
bool rdseed(std::uint64_t& out) {
  unsigned char ok = 0;
  for (int i = 0; i < 100 && !ok; ++i) asm volatile("rdseed %0; setc %1" : "=r"(out), "=qm"(ok)::"cc");
  return ok;
}
bool rdrand(std::uint64_t& out) {
  unsigned char ok = 0;
  for (int i = 0; i < 100 && !ok; ++i) asm volatile("rdrand %0; setc %1" : "=r"(out), "=qm"(ok)::"cc");
  return ok;
}

}  // namespace

void init_random() {
  bool has_rdseed = cpuid(0).eax >= 7 && (cpuid(7).ebx & 1u << 18);
  bool has_rdrand = cpuid(1).ecx & 1u << 30;
  std::uint64_t seed[4] = {read_tsc(), 0, 0, 0};
  bool seeded = false;
  for (int i = 0; i < 4; ++i) {
    std::uint64_t value = 0;
    if (has_rdseed && rdseed(value)) {
      g_source = "rdseed";
      seeded = true;
    } else if (has_rdrand && rdrand(value)) {
      g_source = "rdrand";
      seeded = true;
    }
    seed[i] ^= value;
  }
  mix(seed, sizeof seed);
  if (!seeded)
    console_write_raw("kelda: warning: no RDSEED or RDRAND; random numbers can be guessed until virtio-rng is there\n");
}

void random_fill(MutableBytes out) {
  // The lock is held for one block at a time and never while the caller's memory is written.
  while (!out.empty()) {
    std::uint32_t block[kBlockWords];
    {
      LockGuard guard(g_lock);
      std::uint64_t now = read_tsc();
      mix(&now, sizeof now);
      chacha20_block(block);
      erase_key();
    }
    std::size_t length = out.size() < sizeof block ? out.size() : sizeof block;
    std::memcpy(out.data(), block, length);
    out = out.subspan(length);
  }
}

void add_entropy(Bytes seed, const char* source) {
  LockGuard guard(g_lock);
  mix(seed.data(), seed.size());
  g_source = source;
}

const char* random_source() {
  return g_source;
}

}  // namespace kelda::kernel
