#include "server/client_registry.h"

#include <algorithm>
#include <mutex>

namespace kelda::server {

bool ClientRegistry::add(const std::shared_ptr<ClientInfo>& info, std::uint32_t max_clients) {
  const std::scoped_lock guard(latch_);
  if (clients_.size() >= max_clients) return false;
  info->id = ++last_id_;
  clients_.emplace(info->id, info);
  count_.store(static_cast<std::uint32_t>(clients_.size()), std::memory_order_relaxed);
  return true;
}

void ClientRegistry::remove(const ClientInfo& info) {
  const std::scoped_lock guard(latch_);
  clients_.erase(info.id);
  count_.store(static_cast<std::uint32_t>(clients_.size()), std::memory_order_relaxed);
}

std::shared_ptr<ClientInfo> ClientRegistry::find(std::uint64_t id) {
  const std::scoped_lock guard(latch_);
  const auto found = clients_.find(id);
  return found == clients_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<ClientInfo>> ClientRegistry::snapshot() {
  std::vector<std::shared_ptr<ClientInfo>> result;
  {
    const std::scoped_lock guard(latch_);
    result.reserve(clients_.size());
    for (const auto& [id, info] : clients_) result.push_back(info);
  }
  std::ranges::sort(result, {}, [](const auto& info) { return info->id; });
  return result;
}

void ClientRegistry::disconnect(const std::shared_ptr<ClientInfo>& info, bool only_idle) {
  info->killed.store(true, std::memory_order_relaxed);
  if (!only_idle) info->abandoned.store(true, std::memory_order_relaxed);
  if (info->core == nullptr) return;
  const auto task = [info, only_idle] {
    if (info->connection != nullptr && (!only_idle || info->waiting_for_request)) info->connection->shut_down();
  };
  // Without memory for the task the client still ends at its next request, by `killed`.
  (void)info->core->spawn_remote(task, {.name = "disconnect", .stack_bytes = 16 * 1024});
}

}  // namespace kelda::server
