#include "net/dealer.h"

#include <mutex>

#include "common/assert.h"

namespace kelda::net {

Dealer::Dealer(std::uint32_t core_count) {
  KELDA_ASSERT(core_count > 0);
  for (std::uint32_t i = 0; i < core_count; ++i) shares_.push_back(std::make_shared<Share>());
}

Dealer::Seat Dealer::seat() {
  const auto count = static_cast<std::uint32_t>(shares_.size());
  std::uint32_t best = turn_ % count;
  for (std::uint32_t i = 1; i < count; ++i) {
    const std::uint32_t candidate = (turn_ + i) % count;
    if (shares_[candidate]->live.load(std::memory_order_relaxed) < shares_[best]->live.load(std::memory_order_relaxed))
      best = candidate;
  }
  turn_ = best + 1;
  shares_[best]->live.fetch_add(1, std::memory_order_relaxed);
  Seat seat;
  seat.share_ = shares_[best];
  seat.core_ = best;
  return seat;
}

bool Dealer::deal(std::uint32_t core, std::unique_ptr<Connection> connection) {
  Share& share = *shares_[core];
  std::scoped_lock lock(share.latch);
  if (share.closed) return false;
  share.waiting.push_back(std::move(connection));
  share.takers.wake_one();
  return true;
}

Result<std::unique_ptr<Connection>> Dealer::take() {
  // An attached thread's core may have any index; it takes the share that its index falls on.
  // Held by value: the Dealer may go while the last taker is on its way out.
  const std::shared_ptr<Share> held = shares_[runtime::Core::current().index() % shares_.size()];
  Share& share = *held;
  std::scoped_lock lock(share.latch);
  while (share.waiting.empty() && !share.closed) share.takers.wait(share.latch);
  if (share.closed) return Error(Code::kClosed);
  auto connection = std::move(share.waiting.front());
  share.waiting.pop_front();
  return connection;
}

void Dealer::close() {
  for (auto& share : shares_) {
    std::deque<std::unique_ptr<Connection>> unclaimed;
    {
      std::scoped_lock lock(share->latch);
      share->closed = true;
      unclaimed.swap(share->waiting);
      share->takers.wake_all();
    }
  }
}

}  // namespace kelda::net
