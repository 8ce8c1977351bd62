// CPUs, sleep, clocks, interrupts and the libc shim on the bare machine.
#include <gtest/gtest.h>
#include <immintrin.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/cpu_state.h"
#include "kernel/interrupts.h"
#include "kernel/kernel.h"
#include "kernel/random.h"
#include "kernel/time.h"

namespace kelda::kernel {
namespace {

using namespace std::chrono_literals;

class KernelCpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!running_bare()) GTEST_SKIP() << "needs the bare machine";
  }
};

TEST_F(KernelCpu, ThreadsRunOnAllCpusAtOnceAndNoMore) {
  EXPECT_EQ(std::thread::hardware_concurrency(), cpu_count());
  std::mutex mutex;
  std::set<std::uint32_t> seen{this_cpu_index()};
  std::atomic<std::uint32_t> arrived{1};
  std::atomic<bool> release{false};
  std::vector<std::thread> threads;
  for (std::uint32_t i = 1; i < cpu_count(); ++i) {
    threads.emplace_back([&] {
      {
        std::scoped_lock lock(mutex);
        seen.insert(this_cpu_index());
      }
      ++arrived;
      while (!release) std::this_thread::yield();
    });
  }
  while (arrived < cpu_count()) std::this_thread::yield();
  EXPECT_THROW(std::thread([] {}), std::system_error) << "one thread a CPU";
  release = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(seen.size(), cpu_count());
}

TEST_F(KernelCpu, ThreadsCanBeStartedAgainAndAgain) {
  if (cpu_count() < 2) GTEST_SKIP() << "needs two CPUs";
  int sum = 0;
  for (int i = 0; i < 200; ++i) {
    thread_local int per_thread = 0;
    std::thread([&] { sum += ++per_thread; }).join();
  }
  EXPECT_EQ(sum, 200);
}

TEST_F(KernelCpu, SleepsLastAsLongAsAsked) {
  for (auto length : {100us, 1'000us, 20'000us, 150'000us}) {
    auto begin = std::chrono::steady_clock::now();
    std::this_thread::sleep_for(length);
    auto took = std::chrono::steady_clock::now() - begin;
    EXPECT_GE(took, length);
    EXPECT_LT(took, length + 100ms);  // the host may be busy
  }
}

TEST_F(KernelCpu, AnIdleCpuIsHalted) {
  std::uint64_t before = cpu_halted_ns(this_cpu_index());
  std::this_thread::sleep_for(50ms);
  EXPECT_GE(cpu_halted_ns(this_cpu_index()) - before, 40'000'000u);
  if (cpu_count() > 1) {
    EXPECT_TRUE(cpu_is_halted(1)) << "no thread runs there";
  }
}

TEST_F(KernelCpu, APastDeadlineDoesNotSleep) {
  std::uint64_t begin = monotonic_ns();
  halt_until_interrupt_or(begin);
  halt_until_interrupt_or(0);
  EXPECT_LT(monotonic_ns() - begin, 50'000'000u);
}

// Each side sleeps without a deadline: one lost wake-up and the test hangs.
TEST_F(KernelCpu, WakeUpsAreNeverLost) {
  if (cpu_count() < 2) GTEST_SKIP() << "needs two CPUs";
  constexpr int kRounds = 5000;
  std::atomic<int> turn{0};
  std::uint32_t main_cpu = this_cpu_index();
  std::atomic<std::uint32_t> other_cpu{kMaxCpus};
  std::thread other([&] {
    other_cpu = this_cpu_index();
    for (int i = 0; i < kRounds; ++i) {
      while (turn.load() != 2 * i + 1) halt_until_interrupt_or(kNoDeadline);
      turn = 2 * i + 2;
      wake_cpu(main_cpu);
    }
  });
  while (other_cpu == kMaxCpus) std::this_thread::yield();
  for (int i = 0; i < kRounds; ++i) {
    turn = 2 * i + 1;
    wake_cpu(other_cpu);
    while (turn.load() != 2 * i + 2) halt_until_interrupt_or(kNoDeadline);
  }
  other.join();
}

TEST_F(KernelCpu, WakingAnAwakeCpuMakesItsNextSleepReturn) {
  wake_cpu(this_cpu_index());
  std::uint64_t begin = monotonic_ns();
  halt_until_interrupt_or(begin + 5'000'000'000);
  EXPECT_LT(monotonic_ns() - begin, 1'000'000'000u);
}

struct Raised {
  std::atomic<int> count{0};
  std::atomic<std::uint32_t> cpu{kMaxCpus};
};
Raised g_raised;

TEST_F(KernelCpu, RegisteredVectorsReachTheirHandlerOnTheCpuNamed) {
  auto vector = register_interrupt(
      [](void* context) {
        auto* raised = static_cast<Raised*>(context);
        raised->cpu = this_cpu_index();
        raised->count.fetch_add(1);
      },
      &g_raised);
  ASSERT_TRUE(vector);
  for (std::uint32_t cpu = 0; cpu < cpu_count(); ++cpu) {
    MsiMessage message = msi_message(*vector, cpu);
    EXPECT_EQ(message.address, 0xfee0'0000u | g_cpus[cpu].apic_id << 12);
    EXPECT_EQ(message.data, *vector);
    int before = g_raised.count;
    send_interrupt(g_cpus[cpu].apic_id, *vector);
    while (g_raised.count == before) _mm_pause();
    EXPECT_EQ(g_raised.cpu, cpu);
  }
  EXPECT_TRUE(route_gsi(100'000, *vector, 0, Trigger::kEdge, Polarity::kHigh).failed_with(Code::kUnsupported));
}

TEST_F(KernelCpu, MutexesAndConditionsCrossCpus) {
  if (cpu_count() < 2) GTEST_SKIP() << "needs two CPUs";
  std::mutex mutex;
  std::condition_variable condition;
  constexpr int kRounds = 500;
  int value = 0, seen = 0;
  std::thread consumer([&] {
    while (seen < kRounds) {
      std::unique_lock lock(mutex);
      condition.wait(lock, [&] { return value > seen; });
      seen = value;
      condition.notify_one();
    }
  });
  for (int i = 1; i <= kRounds; ++i) {
    std::unique_lock lock(mutex);
    value = i;
    condition.notify_one();
    condition.wait(lock, [&] { return seen == i; });
  }
  consumer.join();
  EXPECT_EQ(seen, kRounds);
  std::unique_lock lock(mutex);
  EXPECT_EQ(condition.wait_for(lock, 5ms), std::cv_status::timeout);
}

TEST_F(KernelCpu, ClocksAreMonotonicOnEveryCpu) {
  std::atomic<std::uint64_t> latest{0};
  std::atomic<bool> stop{false};
  std::atomic<int> backwards{0};
  auto run = [&] {
    // The value is read after another CPU published its own: it may not be smaller.
    for (int i = 0; i < 20'000; ++i) {
      std::uint64_t published = latest.load();
      std::uint64_t now = monotonic_ns();
      backwards += now < published;
      while (published < now && !latest.compare_exchange_weak(published, now)) {
      }
    }
  };
  std::vector<std::thread> threads;
  for (std::uint32_t i = 1; i < cpu_count(); ++i) threads.emplace_back(run);
  run();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(backwards.load(), 0);
  EXPECT_GT(wall_clock_ns(), std::int64_t{1'700'000'000} * 1'000'000'000) << "the machine knows the date";
  EXPECT_GT(clock_info().tsc_hz, 100'000'000u);
}

// Vector registers hold their values while interrupts come in.
[[gnu::target("avx2")]] int count_avx_damage() {
  int damaged = 0;
  for (int round = 0; round < 200; ++round) {
    __m256i value = _mm256_set1_epi64x(0x0123456789abcdef + round);
    asm volatile("" : "+x"(value));
    std::uint64_t interrupts = interrupt_count(this_cpu_index());
    arm_timer(monotonic_ns() + 20'000);
    for (int spins = 0; spins < 20'000'000 && interrupt_count(this_cpu_index()) == interrupts; ++spins) {
      asm volatile("pause" : "+x"(value));
    }
    __m256i expected = _mm256_set1_epi64x(0x0123456789abcdef + round);
    damaged += _mm256_movemask_epi8(_mm256_cmpeq_epi8(value, expected)) != -1;
  }
  return damaged;
}

TEST_F(KernelCpu, VectorRegistersSurviveInterrupts) {
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "no AVX2";
  EXPECT_EQ(count_avx_damage(), 0);
}

// A leaf function keeps live data below the stack pointer while interrupts come in.
[[gnu::noinline]] std::uint64_t use_red_zone(std::uint64_t rounds) {
  std::uint64_t damaged = 0;
  asm volatile(
      "1: movq %1, -8(%%rsp); movq %1, -128(%%rsp); pause; cmpq %1, -8(%%rsp); jne 2f; cmpq %1, -128(%%rsp); je 3f;"
      "2: incq %0; 3: decq %1; jnz 1b"
      : "+r"(damaged), "+r"(rounds)::"memory", "cc");
  return damaged;
}

TEST_F(KernelCpu, RedZoneSurvivesInterrupts) {
  std::uint64_t before = interrupt_count(this_cpu_index()), damaged = 0;
  for (int i = 0; i < 100; ++i) {
    arm_timer(monotonic_ns() + 10'000);
    damaged += use_red_zone(20'000);
  }
  EXPECT_EQ(damaged, 0u);
  EXPECT_GT(interrupt_count(this_cpu_index()), before);
}

int thrower(int depth) {
  if (depth == 0) throw std::runtime_error("deep");
  return thrower(depth - 1) + 1;
}

TEST_F(KernelCpu, ExceptionsAreCaughtOnEveryThread) {
  auto run = [] {
    for (int i = 0; i < 20; ++i) EXPECT_THROW(thrower(20), std::runtime_error);
  };
  if (cpu_count() > 1) std::thread(run).join();
  run();
}

TEST_F(KernelCpu, RandomBytesDiffer) {
  std::array<std::byte, 64> a{}, b{};
  random_fill(a);
  random_fill(b);
  EXPECT_NE(a, b);
  std::random_device device;
  EXPECT_NE(device(), device());
  std::byte seed[16] = {};
  add_entropy(seed, random_source());
  random_fill(b);
  EXPECT_NE(a, b);
}

TEST_F(KernelCpu, ProcessorTimeDoesNotCountSleep) {
  std::clock_t before = std::clock();
  std::this_thread::sleep_for(60ms);
  EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 25);
}

}  // namespace
}  // namespace kelda::kernel
