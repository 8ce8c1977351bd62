#include "sim/instance.h"

#include <fmt/format.h>

#include "server/server_state.h"

namespace kelda::sim {

namespace {

// The engine owns its device; ours must outlive it, to be what the next start finds.
class BorrowedDevice final : public blockdev::BlockDevice {
 public:
  explicit BorrowedDevice(blockdev::BlockDevice& device) : device_(device) {}
  const blockdev::DeviceInfo& info() const override { return device_.info(); }
  void submit(std::span<blockdev::Request* const> requests) override { device_.submit(requests); }
  blockdev::DeviceStats stats() const override { return device_.stats(); }

 private:
  blockdev::BlockDevice& device_;
};

}  // namespace

Result<std::unique_ptr<Instance>> Instance::start(runtime::Runtime& runtime, blockdev::MemoryDevice& disk,
                                                  const Config& config, std::uint64_t number) {
  std::unique_ptr<Instance> instance(new Instance);
  instance->config_ = &config;
  const auto simulated_map = [&](std::uint64_t, std::uint64_t pages) -> Result<std::unique_ptr<bufferpool::PageMap>> {
    auto map = TRY(bufferpool::SimulatedPageMap::create(pages, config.reference_bits));
    instance->page_map_ = map.get();
    return std::unique_ptr<bufferpool::PageMap>(std::move(map));
  };
  DatabaseOptions options;
  options.memory_bytes = config.engine_memory_bytes;
  options.create_if_blank = true;
  options.lock_timeout_us = kNoLockTimeout;
  if (config.scrub_bytes_per_s > 0) options.scrub.bytes_per_s = config.scrub_bytes_per_s;
  instance->database_ =
      TRY(engine::DatabaseImpl::open(std::make_unique<BorrowedDevice>(disk), options, instance->opened_,
                                     engine::DatabaseImpl::Purpose::kServe, simulated_map));
  net::PipeOptions pipe = config.pipe;
  pipe.seed += number * 1'000'003;
  instance->listener_ = std::make_unique<net::PipeListener>("sim:6379", runtime.core_count(), pipe);
  server::ServerOptions server_options;
  server_options.buffer_limit_bytes = config.request_memory_bytes;
  server_options.request_limit_bytes = server_options.output_limit_bytes = config.request_memory_bytes / 2;
  server_options.memory_bytes = config.engine_memory_bytes + config.request_memory_bytes;
  server_options.platform = "simulated";
  server_options.open_report = instance->opened_;
  instance->server_ = std::make_unique<server::Server>(*instance->database_, server_options);
  Instance& self = *instance;
  TRY(runtime::Core::current().spawn(
      [&self, &runtime] {
        self.serve_result_ = self.server_->serve(runtime, *self.listener_);
        self.served_.set();
      },
      {.name = "server"}));
  return instance;
}

Result<> Instance::stop(bool clean) {
  stopped_ = true;
  server_->request_stop();
  served_.wait();
  Result<> result = std::move(serve_result_);
  if (clean && result) result = database_->close();
  server_.reset();
  listener_.reset();
  database_.reset();
  return result;
}

Instance::~Instance() {
  if (!stopped_ && server_ != nullptr) (void)stop(false);
}

std::string Instance::over_memory() const {
  const DatabaseStats stats = database_->stats();
  const std::uint64_t most = config_->engine_memory_bytes / kPageBytes;
  if (stats.pool_frames > most || stats.pool_resident > stats.pool_frames ||
      page_map_->mapped_count() > stats.pool_frames) {
    return fmt::format("{} frames in a memory of {} pages, {} resident, {} mapped", stats.pool_frames, most,
                       stats.pool_resident, page_map_->mapped_count());
  }
  const std::uint64_t buffers = server_->state().buffers.used_bytes();
  if (buffers > config_->request_memory_bytes + config_->request_memory_bytes / 2) {
    return fmt::format("{} bytes of requests and replies, the limit is {}", buffers, config_->request_memory_bytes);
  }
  return {};
}

}  // namespace kelda::sim
