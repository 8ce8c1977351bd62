#include "server/command_stats.h"

#include <algorithm>

namespace kelda::server {

CommandStats::~CommandStats() {
  for (auto& cells : cores_) delete[] cells.load(std::memory_order_relaxed);
  delete[] base_.load(std::memory_order_relaxed);
}

void CommandStats::add(std::size_t cell, std::uint64_t amount) {
  auto& slot = cores_[runtime::Core::current().index()];
  Cell* mine = slot.load(std::memory_order_relaxed);
  if (mine == nullptr) {
    mine = new Cell[cells()]();
    slot.store(mine, std::memory_order_release);
  }
  // Only this core writes the cell: a load and a store are enough.
  mine[cell].store(mine[cell].load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

void CommandStats::called(std::size_t command, std::uint64_t time_ns, bool failed) {
  add(command * kKinds, 1);
  add(command * kKinds + 1, time_ns);
  if (failed) add(command * kKinds + 3, 1);
}

void CommandStats::rejected(std::size_t command) {
  add(command * kKinds + 2, 1);
}

void CommandStats::error(std::string_view reply) {
  const std::string_view word = reply.substr(1, reply.find_first_of(" \r") - 1);
  const auto found = std::ranges::find(kErrors, word);
  if (found != kErrors.end()) add(commands_ * kKinds + static_cast<std::size_t>(found - kErrors.begin()), 1);
}

std::uint64_t CommandStats::total(std::size_t cell) const {
  std::uint64_t sum = 0;
  for (const auto& cells : cores_) {
    if (const Cell* of_core = cells.load(std::memory_order_acquire)) sum += of_core[cell].load(std::memory_order_relaxed);
  }
  if (const Cell* base = base_.load(std::memory_order_acquire)) sum -= base[cell].load(std::memory_order_relaxed);
  return sum;
}

CommandStats::Counts CommandStats::counts(std::size_t command) const {
  const std::size_t cell = command * kKinds;
  return {total(cell), total(cell + 1), total(cell + 2), total(cell + 3)};
}

std::uint64_t CommandStats::errors(std::size_t error) const {
  return total(commands_ * kKinds + error);
}

void CommandStats::reset() {
  Cell* base = base_.load(std::memory_order_acquire);
  if (base == nullptr) {
    Cell* made = new Cell[cells()]();
    if (base_.compare_exchange_strong(base, made, std::memory_order_acq_rel)) {
      base = made;
    } else {
      delete[] made;
    }
  }
  for (std::size_t cell = 0; cell < cells(); ++cell) base[cell].fetch_add(total(cell), std::memory_order_relaxed);
}

}  // namespace kelda::server
