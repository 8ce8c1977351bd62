// The command line: a copy, its words as argv, and the devices that it describes.
#include "kernel/command_line.h"

#include "kernel/internal.h"
#include "kernel/kernel.h"
#include "kernel/machine_info.h"

namespace kelda::kernel {

namespace {

constexpr std::size_t kMaxBytes = 8192;
constexpr std::string_view kMmioKey = "virtio_mmio.device=";

constinit char g_text[kMaxBytes] = {};
constinit std::size_t g_length = 0;

// A number as Linux takes it: decimal or 0x, and a size may end in K, M or G. Advances `text`.
std::uint64_t take_number(std::string_view& text) {
  unsigned base = 10;
  if (text.starts_with("0x")) {
    base = 16;
    text.remove_prefix(2);
  }
  std::uint64_t value = 0;
  while (!text.empty()) {
    char c = text[0];
    unsigned digit = c >= '0' && c <= '9'   ? c - '0'
                     : c >= 'a' && c <= 'f' ? c - 'a' + 10
                     : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                            : 99;
    if (digit >= base) break;
    value = value * base + digit;
    text.remove_prefix(1);
  }
  const char suffix = text.empty() ? 0 : text[0];
  const unsigned shift = suffix == 'K' ? 10 : suffix == 'M' ? 20 : suffix == 'G' ? 30 : 0;
  if (shift != 0) text.remove_prefix(1);
  return value << shift;
}

bool take(std::string_view& text, char wanted) {
  if (text.empty() || text[0] != wanted) return false;
  text.remove_prefix(1);
  return true;
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n';
}

}  // namespace

std::string_view command_line() {
  return {g_text, g_length};
}

void set_command_line(const char* text) {
  while (text && text[g_length] && g_length + 1 < kMaxBytes) {
    g_text[g_length] = text[g_length];
    ++g_length;
  }
}

void read_mmio_slots_from_command_line() {
  // Byte by byte: find() would call memchr, which the C library has not chosen yet (early.h).
  for (std::string_view rest = command_line(); !rest.empty();) {
    if (!rest.starts_with(kMmioKey)) {
      rest.remove_prefix(1);
      continue;
    }
    rest.remove_prefix(kMmioKey.size());
    VirtioMmioSlot slot{};
    slot.size_bytes = static_cast<std::uint32_t>(take_number(rest));
    if (!take(rest, '@')) continue;
    slot.base = PhysAddr(take_number(rest));
    if (!take(rest, ':')) continue;
    slot.gsi = gsi_of_isa_irq(static_cast<std::uint8_t>(take_number(rest)));
    if (g_machine.mmio_slot_count < kMaxMmioSlots) g_machine.mmio_slots[g_machine.mmio_slot_count++] = slot;
  }
}

std::size_t split_command_line(char* out, std::size_t capacity, std::size_t& size_bytes) {
  std::size_t words = 0, used = 0;
  for (std::size_t at = 0; at < g_length;) {
    if (is_space(g_text[at])) {
      ++at;
      continue;
    }
    std::size_t begin = used;
    char quote = 0;
    for (; at < g_length && (quote || !is_space(g_text[at])); ++at) {
      char c = g_text[at];
      if (quote ? c == quote : c == '"' || c == '\'') {
        quote = quote ? 0 : c;
      } else if (used + 1 < capacity) {
        out[used++] = c;
      }
    }
    if (std::string_view(out + begin, used - begin).starts_with(kMmioKey)) {
      used = begin;
      continue;
    }
    out[used++] = 0;
    ++words;
  }
  size_bytes = used;
  return words;
}

}  // namespace kelda::kernel
