#include "kernel/demand.h"

#include <errno.h>

#include <cstring>

#include "kernel/check.h"
#include "kernel/internal.h"
#include "kernel/limbo.h"
#include "kernel/memory.h"
#include "kernel/spinlock.h"
#include "kernel/tables.h"
#include "kernel/tlb.h"

namespace kelda::kernel {

namespace {

constexpr std::size_t kMaxAreas = 65536;

constinit AreaList g_areas;
constinit SpinLock g_lock;
constinit std::size_t g_room_bytes = 0;  // of the area array, that are mapped
constinit VirtAddr g_array = 0;
constinit VirtAddr g_break = kHeapBase;
constinit VirtAddr g_first_gap = kMmapBase;  // no gap lies below

constexpr std::size_t kDeepestBytes = 4096;  // the stack that is used under the area lock is less

// Holds the area lock with interrupts off. A CPU that waits for it passes generations, so that tlb_force() under the
// lock ends.
class AreaGuard {
 public:
  enum class Stack { kOfProgram, kOfTrap };
  explicit AreaGuard(Stack stack = Stack::kOfProgram) {
    if (stack == Stack::kOfProgram) touch_stack<kDeepestBytes>();
    while (!g_lock.try_lock()) {
      tlb_pass();
      pause();
    }
  }
  ~AreaGuard() { g_lock.unlock(); }

 private:
  InterruptsOff off_;
};

bool make_room(std::size_t count) {
  if (count > kMaxAreas) return false;
  while (g_room_bytes < count * sizeof(Area)) {
    auto frame = alloc_frame();
    std::uint64_t* entry = table_entry(g_array + g_room_bytes, TableLevel::kPage, true);
    if (!frame || !entry) return false;
    *entry = frame->value | kPteData;
    g_room_bytes += kPageBytes;
  }
  return true;
}

bool is_demand(VirtAddr begin, std::size_t size_bytes) {
  return begin >= kHeapBase && begin < kMmapEnd && size_bytes <= kMmapEnd - begin;
}

std::uint64_t entry_flags(Protection protection) {
  return kPtePresent | (allows(protection, Protection::kWrite) ? kPteWritable : 0) |
         (allows(protection, Protection::kExecute) ? 0 : kPteNoExecute);
}

// A zeroed frame, even if other CPUs have to be asked to give up theirs.
std::optional<PhysAddr> take_zeroed_frame() {
  auto frame = alloc_frame();
  if (!frame && limbo_force()) frame = alloc_frame();
  if (frame) zero_frame(*frame);
  return frame;
}

// Puts a frame behind `page` of an area with `protection`; the area lock is held.
DemandFault fill(VirtAddr page, Protection protection) {
  std::uint64_t* slot = table_entry(page, TableLevel::kPage, true);
  if (!slot) return DemandFault::kNoMemory;
  std::uint64_t entry = *slot;
  std::uint64_t frame = entry & kPteFrameMask;
  KERNEL_CHECK(!(entry & kPteLimbo));  // T2
  if (entry == 0) {
    auto fresh = take_zeroed_frame();
    if (!fresh) return DemandFault::kNoMemory;
    frame = fresh->value;
  }
  // Release: a CPU that walks the tables after this finds the frame zeroed.
  atomic_entry(slot).store(frame | entry_flags(protection), std::memory_order_release);
  if (entry & kPtePresent) invalidate_page(page);
  return DemandFault::kMapped;
}

DemandFault fault(VirtAddr address, Protection wanted, AreaGuard::Stack stack) {
  if (!is_demand(address, 1)) return DemandFault::kNoArea;
  AreaGuard guard(stack);
  const Area* area = g_areas.find(address);
  if (!area) return DemandFault::kNoArea;
  if (area->protection == Protection::kNone || !allows(area->protection, wanted)) return DemandFault::kForbidden;
  return fill(round_down(address, kPageBytes), area->protection);
}

// Sends the frames of [begin, end) to limbo.
void retire(VirtAddr begin, VirtAddr end) {
  if (limbo_add(begin, end)) return;
  limbo_force();
  KERNEL_CHECK(limbo_add(begin, end));
}

bool is_in_limbo(VirtAddr begin, VirtAddr end) {
  if (limbo_page_count() == 0) return false;
  bool in_limbo = false;
  for_each_entry(begin, end, [&in_limbo](std::uint64_t* entry, VirtAddr) { in_limbo |= (*entry & kPteLimbo) != 0; });
  return in_limbo;
}

// T2: makes [begin, end), which is about to be usable, free of limbo.
void settle(VirtAddr begin, VirtAddr end) {
  if (is_in_limbo(begin, end)) limbo_force();
}

void unmap_locked(VirtAddr begin, VirtAddr end) {
  retire(begin, end);
  if (begin < g_first_gap && begin >= kMmapBase) g_first_gap = begin;
}

std::int64_t choose_address(VirtAddr hint, std::size_t size_bytes) {
  if (hint >= kMmapBase && is_demand(hint, size_bytes) && hint % kPageBytes == 0 &&
      g_areas.is_gap(hint, hint + size_bytes)) {
    return static_cast<std::int64_t>(hint);
  }
  auto first_gap = g_areas.find_gap(kPageBytes, g_first_gap, kMmapEnd);
  if (!first_gap) return -ENOMEM;
  g_first_gap = *first_gap;
  // Addresses in limbo would have to be settled by interrupts: look a little further for others.
  constexpr int kTries = 8;
  VirtAddr from = g_first_gap;
  for (int i = 0; i < kTries; ++i) {
    auto gap = g_areas.find_gap(size_bytes, from, kMmapEnd);
    if (!gap) break;
    if (!is_in_limbo(*gap, *gap + size_bytes)) return static_cast<std::int64_t>(*gap);
    from = *gap + size_bytes;
  }
  auto gap = g_areas.find_gap(size_bytes, g_first_gap, kMmapEnd);
  return gap ? static_cast<std::int64_t>(*gap) : -ENOMEM;
}

// More writable memory in one request than there is free: refused now, which glibc turns into bad_alloc, rather than a
// panic at some later touch.
bool exceeds_memory(std::size_t size_bytes, Protection protection) {
  if (!allows(protection, Protection::kWrite)) return false;
  MemoryStats stats = memory_stats();
  return size_bytes / kPageBytes > stats.free_page_count + stats.limbo_page_count;
}

// The new protection takes effect on pages that are there: hidden, shown, or with other rights. Stale rights on other
// CPUs end with their next flush; until then an access they still allow reaches the right frame.
void protect_page(std::uint64_t* slot, VirtAddr page, Protection protection) {
  std::uint64_t entry = *slot, frame = entry & kPteFrameMask;
  if (!(entry & (kPtePresent | kPteHidden))) return;
  std::uint64_t wanted = protection == Protection::kNone ? frame | kPteHidden : frame | entry_flags(protection);
  atomic_entry(slot).store(wanted, std::memory_order_release);
  invalidate_page(page);
}

// Moves entries; limbo stays where it is. Other CPUs flush before the old addresses can be used again.
void move_entries(VirtAddr from, VirtAddr to, std::size_t size_bytes) {
  for_each_entry(from, from + size_bytes, [from, to](std::uint64_t* source, VirtAddr page) {
    if (!(*source & (kPtePresent | kPteHidden))) return;
    std::uint64_t* target = table_entry(to + (page - from), TableLevel::kPage, true);
    KERNEL_CHECK(target);
    *target = *source;
    *source = 0;
  });
  tlb_force(tlb_new_generation());
}

// Copies pages to new frames: for few pages this costs less than making other CPUs flush. False without memory.
bool copy_pages(VirtAddr from, VirtAddr to, std::size_t size_bytes, Protection protection) {
  bool complete = true;
  for_each_entry(from, from + size_bytes, [&](std::uint64_t* source, VirtAddr page) {
    if (!(*source & (kPtePresent | kPteHidden)) || !complete) return;
    VirtAddr copy = to + (page - from);
    complete = fill(copy, protection) == DemandFault::kMapped;
    if (complete)
      std::memcpy(frame_pointer(PhysAddr(*table_entry(copy, TableLevel::kPage, false) & kPteFrameMask)),
                  frame_pointer(PhysAddr(*source & kPteFrameMask)), kPageBytes);
  });
  return complete;
}

// Up to so many pages, copying and zeroing are preferred to interrupting other CPUs.
constexpr std::size_t kFewBytes = 64 * kPageBytes;

void zero_pages(VirtAddr begin, VirtAddr end) {
  for_each_entry(begin, end, [](std::uint64_t* entry, VirtAddr) {
    if (*entry & (kPtePresent | kPteHidden)) zero_frame(PhysAddr(*entry & kPteFrameMask));
  });
}

}  // namespace

void init_demand() {
  g_array = reserve_kernel_addresses(kMaxAreas * sizeof(Area));
  g_areas.init(reinterpret_cast<Area*>(g_array), make_room);
}

DemandFault demand_fault(VirtAddr address, bool write, bool fetch) {
  return fault(address, write ? Protection::kWrite : fetch ? Protection::kExecute : Protection::kRead,
               AreaGuard::Stack::kOfTrap);
}

DemandFault populate_page(VirtAddr page) {
  return fault(page, Protection::kRead, AreaGuard::Stack::kOfProgram);
}

std::int64_t demand_map(const MapRequest& request) {
  if (request.size_bytes == 0) return -EINVAL;
  if (request.size_bytes > kMmapEnd - kMmapBase) return -ENOMEM;
  if (!request.may_exceed_memory && exceeds_memory(request.size_bytes, request.protection)) return -ENOMEM;
  std::size_t size_bytes = round_up(request.size_bytes, kPageBytes);
  VirtAddr hint = request.hint;
  if (request.fixed && (hint % kPageBytes || hint < kMmapBase || !is_demand(hint, size_bytes))) return -EINVAL;
  AreaGuard guard;
  std::int64_t address = request.fixed ? static_cast<std::int64_t>(hint) : choose_address(hint, size_bytes);
  if (address < 0) return address;
  auto begin = static_cast<VirtAddr>(address);
  if (request.fixed) unmap_locked(begin, begin + size_bytes);
  settle(begin, begin + size_bytes);
  return g_areas.set(begin, begin + size_bytes, request.protection) ? address : -ENOMEM;
}

bool demand_is_used(VirtAddr begin, std::size_t size_bytes) {
  AreaGuard guard;
  return !g_areas.is_gap(begin, begin + size_bytes);
}

std::int64_t demand_unmap(VirtAddr begin, std::size_t size_bytes) {
  size_bytes = round_up(size_bytes, kPageBytes);
  if (begin % kPageBytes || size_bytes == 0 || begin < kMmapBase || !is_demand(begin, size_bytes)) return -EINVAL;
  AreaGuard guard;
  if (!g_areas.clear(begin, begin + size_bytes)) return -ENOMEM;
  unmap_locked(begin, begin + size_bytes);
  return 0;
}

std::int64_t demand_protect(VirtAddr begin, std::size_t size_bytes, Protection protection) {
  size_bytes = round_up(size_bytes, kPageBytes);
  if (begin % kPageBytes || !is_demand(begin, size_bytes)) return -EINVAL;
  AreaGuard guard;
  if (!g_areas.covers(begin, begin + size_bytes) || !g_areas.set(begin, begin + size_bytes, protection)) return -ENOMEM;
  for_each_entry(begin, begin + size_bytes,
                 [protection](std::uint64_t* slot, VirtAddr page) { protect_page(slot, page, protection); });
  return 0;
}

std::int64_t demand_discard(VirtAddr begin, std::size_t size_bytes) {
  size_bytes = round_up(size_bytes, kPageBytes);
  if (begin % kPageBytes || !is_demand(begin, size_bytes)) return -EINVAL;
  AreaGuard guard;
  if (!g_areas.covers(begin, begin + size_bytes)) return -ENOMEM;
  if (size_bytes <= kFewBytes && !tlb_others_sleep()) {
    zero_pages(begin, begin + size_bytes);
    return 0;
  }
  retire(begin, begin + size_bytes);
  settle(begin, begin + size_bytes);
  return 0;
}

std::int64_t demand_resize(VirtAddr begin, std::size_t old_bytes, std::size_t new_bytes, bool may_move) {
  old_bytes = round_up(old_bytes, kPageBytes);
  new_bytes = round_up(new_bytes, kPageBytes);
  if (begin % kPageBytes || new_bytes == 0 || !is_demand(begin, old_bytes) || begin < kMmapBase) return -EINVAL;
  if (new_bytes <= old_bytes) {
    if (new_bytes < old_bytes) demand_unmap(begin + new_bytes, old_bytes - new_bytes);
    return static_cast<std::int64_t>(begin);
  }
  AreaGuard guard;
  const Area* area = g_areas.find(begin);
  if (!area || area->end < begin + old_bytes) return -EFAULT;
  Protection protection = area->protection;
  if (exceeds_memory(new_bytes - old_bytes, protection)) return -ENOMEM;
  if (is_demand(begin, new_bytes) && g_areas.is_gap(begin + old_bytes, begin + new_bytes)) {
    settle(begin + old_bytes, begin + new_bytes);
    if (!g_areas.set(begin + old_bytes, begin + new_bytes, protection)) return -ENOMEM;
    return static_cast<std::int64_t>(begin);
  }
  if (!may_move) return -ENOMEM;
  std::int64_t target = choose_address(0, new_bytes);
  if (target < 0) return target;
  auto to = static_cast<VirtAddr>(target);
  settle(to, to + new_bytes);
  if (!g_areas.set(to, to + new_bytes, protection)) return -ENOMEM;
  if (old_bytes > kFewBytes || tlb_others_sleep()) {
    move_entries(begin, to, old_bytes);
  } else if (!copy_pages(begin, to, old_bytes, protection)) {
    KERNEL_CHECK(g_areas.clear(to, to + new_bytes));
    unmap_locked(to, to + new_bytes);
    return -ENOMEM;
  }
  KERNEL_CHECK(g_areas.clear(begin, begin + old_bytes));
  unmap_locked(begin, begin + old_bytes);
  return target;
}

VirtAddr demand_break(VirtAddr wanted) {
  AreaGuard guard;
  if (wanted < kHeapBase || wanted >= kMmapBase) return g_break;
  VirtAddr old_end = round_up(g_break, kPageBytes), new_end = round_up(wanted, kPageBytes);
  constexpr Protection kData = Protection::kRead | Protection::kWrite;
  if (new_end > old_end) {
    settle(old_end, new_end);
    if (exceeds_memory(new_end - old_end, kData) || !g_areas.set(old_end, new_end, kData)) return g_break;
  } else if (new_end < old_end) {
    if (!g_areas.clear(new_end, old_end)) return g_break;
    retire(new_end, old_end);
  }
  g_break = wanted;
  return g_break;
}

std::size_t demand_area_count() {
  AreaGuard guard;
  return g_areas.count();
}

}  // namespace kelda::kernel
