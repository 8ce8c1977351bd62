#include "kernel/console.h"

#include "kernel/internal.h"
#include "kernel/machine.h"
#include "kernel/spinlock.h"

namespace kelda::kernel {

namespace {

constexpr std::uint16_t kPort = 0x3f8;
constexpr std::uint16_t kLineStatus = kPort + 5;
constexpr std::uint8_t kDataReady = 1u << 0, kTransmitterEmpty = 1u << 5;
constexpr std::size_t kFifoBytes = 16;

constinit SpinLock g_lock;
constinit std::size_t g_fifo_room = 0;

void put(char byte) {
  // An empty transmitter takes a whole FIFO before it must be asked again.
  if (g_fifo_room == 0) {
    for (int spins = 0; !(in8(kLineStatus) & kTransmitterEmpty) && spins < 1'000'000; ++spins) pause();
    g_fifo_room = kFifoBytes;
  }
  out8(kPort, static_cast<std::uint8_t>(byte));
  --g_fifo_room;
}

}  // namespace

void init_console() {
  out8(kPort + 1, 0);     // no interrupts
  out8(kPort + 3, 0x80);  // divisor access
  out8(kPort + 0, 1);     // 115200 baud
  out8(kPort + 1, 0);
  out8(kPort + 3, 3);  // 8 bits, no parity, 1 stop
  out8(kPort + 2, 7);  // FIFOs on and cleared
  out8(kPort + 4, 3);  // ready
}

void console_write_raw(std::string_view text) {
  for (char byte : text) put(byte);
}

void console_write(std::string_view text) {
  // In pieces, so that interrupts are never off for long; a line that fits a piece stays whole.
  constexpr std::size_t kPiece = 512;
  while (!text.empty()) {
    std::string_view piece = text.substr(0, kPiece);
    text.remove_prefix(piece.size());
    LockGuard guard(g_lock);
    console_write_raw(piece);
  }
}

std::size_t console_read(char* out, std::size_t capacity) {
  LockGuard guard(g_lock);
  if (in8(kLineStatus) == 0xff) return 0;  // no port
  std::size_t count = 0;
  while (count < capacity && (in8(kLineStatus) & kDataReady)) out[count++] = static_cast<char>(in8(kPort));
  return count;
}

}  // namespace kelda::kernel
