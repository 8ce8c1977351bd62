// Demand-zero memory: the program break and mmap areas. Frames come with the first touch, zeroed, and go back when the
// memory is unmapped or discarded (through limbo, tlb.h). Private to kernel/; the shim and the fault handler call it.
//
// Contract: addresses are page-aligned unless said otherwise. Functions return 0 or a positive result, or a negative
// errno as the shim passes on. Thread-safe.
//
// An entry of such memory is one of
//   0                                nothing yet
//   frame | present | ...            mapped
//   frame | kPteHidden               not accessible (PROT_NONE), content kept
//   frame | kPteLimbo | tag << 52    unmapped or discarded; other CPUs may still reach the frame (T1, T2)
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/area_list.h"
#include "kernel/paging.h"

namespace kelda::kernel {

void init_demand();

// A fault or populate(): makes the page accessible, or says why not.
enum class DemandFault : std::uint8_t { kMapped, kNoArea, kForbidden, kNoMemory };
DemandFault demand_fault(VirtAddr address, bool write, bool fetch);
// The same without an access: for DMA.
DemandFault populate_page(VirtAddr page);

// New memory. Returns its address.
struct MapRequest {
  VirtAddr hint = 0;  // a wish; with `fixed` the place, and what is there is replaced
  std::size_t size_bytes = 0;
  Protection protection = Protection::kNone;
  bool fixed = false;
  bool may_exceed_memory = false;  // the caller will touch a small part only; else more than is free is refused
};
std::int64_t demand_map(const MapRequest& request);
// Is any of it mapped?
bool demand_is_used(VirtAddr begin, std::size_t size_bytes);
std::int64_t demand_unmap(VirtAddr begin, std::size_t size_bytes);
std::int64_t demand_protect(VirtAddr begin, std::size_t size_bytes, Protection protection);
// The memory stays mapped and reads as zeroes from now on. Its frames go back, unless they are few and other CPUs would
// have to be interrupted for them.
std::int64_t demand_discard(VirtAddr begin, std::size_t size_bytes);
// mremap: shrinks, grows in place, or with `may_move` moves (few pages by copying). Returns the address.
std::int64_t demand_resize(VirtAddr begin, std::size_t old_bytes, std::size_t new_bytes, bool may_move);
// brk: moves the program break if it can; returns the break in force.
VirtAddr demand_break(VirtAddr wanted);

// Areas in use; for tests.
std::size_t demand_area_count();

}  // namespace kelda::kernel
