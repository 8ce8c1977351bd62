#include "kernel/backtrace.h"

#include "kernel/internal.h"
#include "kernel/tables.h"

extern "C" char kelda_syscall_dispatched[];  // entry.S

namespace kelda::kernel {

namespace {

// Between the frame that a system call's entry makes and the caller's stack: the flags and the red zone (entry.S).
constexpr std::uint64_t kSyscallSkipped = 8 + 128;

bool read_word(std::uint64_t address, std::uint64_t& out) {
  if (address % sizeof(std::uint64_t) || !find_mapping(address).entry) return false;
  out = *reinterpret_cast<const std::uint64_t*>(address);
  return true;
}

// Is there a call instruction that ends at `address`? Direct near (5 bytes) or indirect (2 to 7 bytes).
bool follows_call(std::uint64_t address) {
  if (!is_image_text(address) || !is_image_text(address - 8)) return false;
  auto* code = reinterpret_cast<const std::uint8_t*>(address);
  if (code[-5] == 0xe8) {
    auto offset = static_cast<std::uint32_t>(code[-4]) | static_cast<std::uint32_t>(code[-3]) << 8 |
                  static_cast<std::uint32_t>(code[-2]) << 16 | static_cast<std::uint32_t>(code[-1]) << 24;
    return is_image_text(address +
                         static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int32_t>(offset))));
  }
  for (int length = 2; length <= 7; ++length) {
    if (code[-length] == 0xff && (code[1 - length] >> 3 & 7) == 2) return true;
  }
  return false;
}

// A frame further up the same stack whose return address follows a call.
bool is_frame(std::uint64_t rbp, std::uint64_t above, std::uint64_t& next, std::uint64_t& address) {
  constexpr std::uint64_t kLargestFrame = 16_MiB;
  if (rbp < above || rbp - above > kLargestFrame) return false;
  return read_word(rbp, next) && read_word(rbp + 8, address) && follows_call(address);
}

// A function that was just entered, keeps no frame, or jumped away has its caller on top of the stack.
bool caller_on_top(std::uint64_t rsp, std::uint64_t rbp, std::uint64_t& caller) {
  std::uint64_t next, address;
  return read_word(rsp, caller) && follows_call(caller) && !(is_frame(rbp, rsp, next, address) && address == caller);
}

}  // namespace

void walk_stack(std::uint64_t rip, std::uint64_t rsp, std::uint64_t rbp, void (*visit)(std::uint64_t, FrameKind)) {
  int left = kMaxFrames;
  visit(rip, FrameKind::kInstruction);
  std::uint64_t top, next, address;
  if (caller_on_top(rsp, rbp, top)) {
    visit(top, is_image_text(rip) ? FrameKind::kGuess : FrameKind::kReturn);
    rsp += 8;
  }
  for (std::uint64_t at = rsp; left > 0;) {
    while (left > 0 && is_frame(rbp, at, next, address)) {
      visit(address, FrameKind::kReturn);
      --left;
      at = rbp + 16;
      rbp = next;
      // The program's own frame comes next; the address in it follows no call.
      if (address != reinterpret_cast<std::uint64_t>(kelda_syscall_dispatched)) continue;
      if (!read_word(rbp, next) || !read_word(rbp + 8, address)) return;
      visit(address, FrameKind::kReturn);
      --left;
      at = rbp + 16 + kSyscallSkipped;
      rbp = next;
      if (!caller_on_top(at, rbp, top)) continue;
      visit(top, FrameKind::kGuess);
      --left;
      at += 8;
    }
    // The chain is broken or at its end: look for the next frame or return address within a page or two.
    bool found = false;
    for (int words = 0; words < 1024 && !found && left > 0; ++words, at += 8) {
      std::uint64_t word;
      if (!read_word(at, word)) return;
      if (is_frame(at, at, next, address) && next > at) {
        rbp = at;
        found = true;
        break;
      }
      if (follows_call(word)) {
        visit(word, FrameKind::kGuess);
        --left;
      }
    }
    if (!found) return;
  }
}

}  // namespace kelda::kernel
