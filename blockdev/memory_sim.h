// A disk in memory that can fail in every way a real one does. Works on any core: hosted, bare, simulated.
//
// Contract: BlockDevice's, and nothing kinder. A completed write is seen by reads at once but is durable only after a
// flush that was submitted later (or with fua); crash() makes the device that a reboot would find. Operations are
// numbered in the order in which they are carried out, so that a test can crash at each of them in turn:
//
//   for (n = 0;; ++n) {
//     MemoryDevice disk(options, {.crash_after_ops = n});
//     ...work until an error; if (disk.op_count() <= n) break...
//     auto rebooted = disk.crash(Survival::kRandom, seed);  ...check...
//   }
//
// and, where a sample is not enough, look at each disk that this very cut may leave: cut_power() lists the writes it
// decides about, crash(survived) makes one choice.
//
// Requests complete from the core's loop, never inside submit(). Thread-safe. Destroy it with nothing in flight.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <set>
#include <string>
#include <vector>

#include "blockdev/blockdev.h"
#include "blockdev/counters.h"
#include "blockdev/fault_plan.h"
#include "blockdev/sparse_image.h"
#include "common/prng.h"

namespace kelda::blockdev {

struct MemoryOptions {
  std::uint64_t size_bytes = 64_MiB;
  std::uint32_t block_bytes = 512;
  std::uint32_t atomic_bytes = 512;
  std::uint32_t max_transfer_bytes = 1 << 20;
  bool has_flush = true;
  bool has_fua = true;
  bool has_discard = true;
  bool has_write_zeroes = true;
  bool read_only = false;
  std::string name = "memory";
};

class MemoryDevice final : public BlockDevice {
 public:
  explicit MemoryDevice(MemoryOptions options = {}, FaultPlan plan = {});
  ~MemoryDevice() override;

  const DeviceInfo& info() const override { return info_; }
  void submit(std::span<Request* const> requests) override;
  DeviceStats stats() const override { return counters_.total(); }

  // Cuts the power: every later operation fails with kIo. Returns what the next boot finds, without faults. May be
  // called again for another outcome of the same cut. Operations in flight at the cut may have reached the medium.
  std::unique_ptr<MemoryDevice> crash(Survival survival, std::uint64_t seed = 1);
  // One outcome by choice: of write i of the list only the part survived[i] is on the medium.
  std::unique_ptr<MemoryDevice> crash(std::span<const Survived> survived);
  // Cuts the power. The list: writes that completed and no flush has covered, in their order (not those with fua, which
  // survive), then those in flight at the cut. Any part of any of them may survive.
  std::vector<Unsettled> cut_power();
  // A copy of the disk at this moment, as crash() would leave it; this one goes on.
  std::unique_ptr<MemoryDevice> snapshot(Survival survival, std::uint64_t seed = 1) const;
  // A larger disk from now on. Only while nobody has it open.
  void grow(std::uint64_t size_bytes);

  // Operations carried out so far (those that failed by a rule included, those after the death not).
  std::uint64_t op_count() const;
  bool dead() const;
  // Faults that took effect, so that a test can prove that its rule was reached.
  std::uint64_t faults_hit() const;
  // From now on; skip and count of the rules start anew, crash_after_ops counts from the device's first operation.
  void set_plan(FaultPlan plan);

  // The medium itself, without an operation: what reads would see, and what a power cut keeps.
  void peek(std::uint64_t offset_bytes, MutableBytes out) const;
  void poke(std::uint64_t offset_bytes, Bytes data);
  void flip_bit(std::uint64_t offset_bytes, unsigned bit);
  // Of what a power cut keeps for certain: the same for the same content.
  std::uint64_t fingerprint() const;
  // The block there cannot be read until it is written again.
  void make_unreadable(std::uint64_t offset_bytes);
  std::uint64_t used_bytes() const;

 private:
  // Requests in flight of one core: a poller, registered while there are any. The map is guarded by latch_.
  struct Entry {
    Request* request;
    std::uint64_t flush_covers;  // a flush: changes with a lower number
    bool judged = false;         // held against the rules, with this outcome
    std::optional<Fault> fault = {};
  };
  struct Queue final : runtime::Poller {
    explicit Queue(MemoryDevice& owner) : device(owner) {}
    std::size_t poll() override;
    runtime::TimeNs next_deadline_ns() override;
    MemoryDevice& device;
    std::multimap<runtime::TimeNs, Entry> by_due_time;  // first come, first served among equals
  };
  // A change of the medium that no flush has covered yet.
  struct Change {
    std::uint64_t at = 0;
    std::uint64_t length = 0;
    std::vector<std::byte> data = {};  // empty: erased
    bool durable = false;         // survives every power cut
  };

  MemoryDevice(DeviceInfo info, const SparseImage& image);
  Queue& queue_of(const runtime::Core& core);
  void finish(const Entry& entry);
  void release_stuck();

  // memory_faults_sim.cc, all under latch_: the operation proper, at the time of its completion.
  Result<> carry_out(const Entry& entry);
  Result<> carry_out_sound(const Entry& entry);
  Result<> carry_out_faulty(const Entry& entry, Fault fault);
  runtime::TimeNs judge(Entry& entry, runtime::TimeNs now_ns);
  const FaultRule* due_rule(const Request& request);
  Result<> load(const Request& request, std::uint64_t at) const;
  Result<> store(const Request& request, std::uint64_t at);
  void change(Change what);
  void make_durable(std::uint64_t changes_below);
  void rot(const Request& request);
  void die();
  void strike(const Request& request);
  std::uint64_t elsewhere(std::uint64_t at, std::uint64_t length);
  // The durable image with every unsettled change as apply(image, change) leaves it.
  template <class Apply>
  std::unique_ptr<MemoryDevice> rebooted(Apply apply) const;
  std::unique_ptr<MemoryDevice> copy_with(const SparseImage& image) const;
  void apply_random_units(SparseImage& image, const Change& what, Survival survival, Prng& prng) const;
  Error error(const Request& request, Code code, const char* words) const;

  DeviceInfo info_;
  Counters counters_;
  std::array<std::atomic<Queue*>, runtime::Core::kMaxCores> queues_{};

  mutable runtime::SpinLatch latch_;  // guards all below; held for a copy at most
  FaultPlan plan_;
  Prng prng_;
  std::vector<std::uint64_t> rule_matches_;
  SparseImage current_;               // what reads see: durable_ with changes_ applied in their order
  SparseImage durable_;
  std::vector<Change> changes_;
  std::uint64_t first_change_ = 0;    // the number of changes_[0], counted from the first ever
  std::vector<Change> struck_;        // writes that the death met in flight
  std::set<std::uint64_t> unreadable_;  // numbers of blocks
  std::uint64_t op_count_ = 0;
  std::uint64_t faults_hit_ = 0;
  bool dead_ = false;
};

}  // namespace kelda::blockdev
