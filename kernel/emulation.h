// Emulated machines, and the one promise of a processor that they break.
//
// QEMU without hardware virtualisation (TCG) leaves the memory barriers of the guest out of the code that it makes for a
// machine of one possible CPU (`-smp 1`) and for CPUs that take turns in one thread (`-accel tcg,thread=single`, -icount).
// Its devices run in other threads of the host all the same. So a driver's store followed by a load of what the device
// stores may be seen the other way round, and both questions "may I sleep" and "may I leave out the notification" can be
// answered yes by both sides: a request is then neither seen nor its completion told, and the machine sleeps for ever.
// Every decision against that stands here:
//  1. device_fence() between those stores and loads (virtio_queue.cc, Q3 and Q4). A port access leaves the generated code
//     and takes QEMU's lock, which orders memory on the host.
//  2. Belt and braces, for hosts on which that lock orders less: a core that has devices never sleeps longer than
//     kIdleLookNs (any device, above all a network, where something may always arrive), and one with disk requests in
//     flight looks, and tells the device again, every kRequestLookNs.
// A machine under hardware virtualisation does none of this: there barriers are the processor's own.
#pragma once

#include <cstdint>

namespace kelda::kernel {

inline constexpr std::uint64_t kRequestLookNs = 2'000'000;
inline constexpr std::uint64_t kIdleLookNs = 20'000'000;

// May barriers between this program and its devices be missing? True on QEMU's TCG and on whatever gives no name in CPUID's
// hypervisor leaf, since an emulator can be told to hide its own; false in a Linux process. Constant; any context.
bool may_miss_devices();

// A full barrier against devices, where the processor's own may be missing; null where it is not needed.
using DeviceFence = void (*)();
DeviceFence device_fence();

}  // namespace kelda::kernel
