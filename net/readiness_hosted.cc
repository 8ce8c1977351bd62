#include "net/readiness_hosted.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <mutex>
#include <thread>
#include <unordered_map>

#include "common/assert.h"

namespace kelda::net {
namespace {

struct Waiter {
  runtime::Fiber* fiber;
  bool ready = false;  // guarded by the state's mutex
};

struct Watched {
  Waiter* waiters[2] = {};  // by direction
  std::uint32_t events() const { return (waiters[0] ? EPOLLIN : 0u) | (waiters[1] ? EPOLLOUT : 0u); }
};

}  // namespace

// A waiter lies on its fiber's stack: it is touched under the mutex only, while it is in the table.
struct Readiness::State {
  std::mutex mutex;
  std::unordered_map<int, Watched> sockets;
  const int epoll = epoll_create1(EPOLL_CLOEXEC);

  // Under the mutex. Every event disarms its socket; this arms it for whoever waits. A socket number that was closed and
  // given out again is unknown to epoll, though not to us.
  void arm(int socket, Watched& watched) {
    epoll_event event{};
    event.events = watched.events() | EPOLLONESHOT;
    event.data.fd = socket;
    if (::epoll_ctl(epoll, EPOLL_CTL_MOD, socket, &event) == 0) return;
    KELDA_ASSERT(::epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event) == 0);
  }

  void deliver(const epoll_event& event) {
    std::scoped_lock lock(mutex);
    auto found = sockets.find(event.data.fd);
    if (found == sockets.end()) return;
    const bool broken = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
    const bool ready[2] = {broken || (event.events & EPOLLIN) != 0, broken || (event.events & EPOLLOUT) != 0};
    for (int i = 0; i < 2; ++i) {
      if (found->second.waiters[i] == nullptr || !ready[i]) continue;
      Waiter& waiter = *std::exchange(found->second.waiters[i], nullptr);
      waiter.ready = true;
      runtime::Core::unpark(*waiter.fiber);
    }
    settle(found);
  }

  // Under the mutex: forgets a socket that nobody waits for, else arms it.
  void settle(std::unordered_map<int, Watched>::iterator at) {
    if (at->second.events() == 0) sockets.erase(at);
    else arm(at->first, at->second);
  }

  void run() {
    epoll_event events[64];
    while (true) {
      const int count = ::epoll_wait(epoll, events, 64, -1);
      for (int i = 0; i < count; ++i) deliver(events[i]);
    }
  }
};

Readiness::Readiness() : state_(*new State()) {
  KELDA_ASSERT(state_.epoll >= 0);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the threads that expect them
  std::thread([&state = state_] { state.run(); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Readiness& Readiness::instance() {
  static Readiness readiness;
  return readiness;
}

bool Readiness::wait(int socket, Direction direction, runtime::TimeNs deadline_ns) {
  runtime::Core& core = runtime::Core::current();
  const int index = direction == Direction::kRead ? 0 : 1;
  Waiter waiter{&core.current_fiber()};
  {
    std::scoped_lock lock(state_.mutex);
    Watched& watched = state_.sockets[socket];
    KELDA_ASSERT(watched.waiters[index] == nullptr);
    watched.waiters[index] = &waiter;
    state_.arm(socket, watched);
  }
  while (true) {
    const bool in_time = core.park_until(deadline_ns);
    std::scoped_lock lock(state_.mutex);
    if (waiter.ready) return true;
    if (in_time) continue;
    auto found = state_.sockets.find(socket);
    found->second.waiters[index] = nullptr;
    state_.settle(found);
    return false;
  }
}

}  // namespace kelda::net
