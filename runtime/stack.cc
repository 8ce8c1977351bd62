#include "runtime/stack.h"

#include <sys/mman.h>

#include <utility>

#include "common/types.h"

namespace kelda::runtime {

namespace {
constexpr std::size_t kGuardBytes = kPageBytes;
}

std::byte* Stack::bottom() const { return mapping_ + kGuardBytes; }
std::byte* Stack::top() const { return bottom() + size_bytes_; }

Stack::~Stack() {
  if (mapping_ != nullptr) munmap(mapping_, kGuardBytes + size_bytes_);
}

void Stack::swap(Stack& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(size_bytes_, other.size_bytes_);
}

Result<Stack> Stack::allocate(std::size_t size_bytes) {
  const std::size_t usable = round_up(size_bytes, kPageBytes);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
  void* mapping = mmap(nullptr, kGuardBytes + usable, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapping == MAP_FAILED) return Error(Code::kOutOfMemory, "no memory for a fiber's stack");
  Stack stack;
  stack.mapping_ = static_cast<std::byte*>(mapping);
  stack.size_bytes_ = usable;
  if (mprotect(mapping, kGuardBytes, PROT_NONE) != 0) {
    return Error(Code::kOutOfMemory, "no memory for the guard page of a fiber's stack");
  }
  return stack;
}

Result<Stack> StackCache::take(std::size_t size_bytes) {
  const std::size_t wanted = round_up(size_bytes, kPageBytes);
  for (std::size_t i = stacks_.size(); i-- > 0;) {
    if (stacks_[i].size_bytes() != wanted) continue;
    Stack found = std::move(stacks_[i]);
    stacks_[i] = std::move(stacks_.back());
    stacks_.pop_back();
    return found;
  }
  return Stack::allocate(size_bytes);
}

void StackCache::give(Stack stack) {
  if (stack.size_bytes() <= kMaxCachedBytes && stacks_.size() < kMaxStacks) stacks_.push_back(std::move(stack));
}

}  // namespace kelda::runtime
