// The virtual machine's monitor (QEMU's QMP): how `kelda vm` presses the power button and learns why the machine ended.
// A pair of sockets, of which QEMU gets one end; nothing of it lies in the file system. One thread; nothing here waits.
#pragma once

#include <cstdint>
#include <string>

#include "common/result.h"

namespace kelda::tools {

class VmMonitor {
 public:
  VmMonitor() = default;
  ~VmMonitor();
  VmMonitor(const VmMonitor&) = delete;
  VmMonitor& operator=(const VmMonitor&) = delete;

  Result<> make();
  int guest_end() const { return ends_[1]; }
  void started();  // QEMU has its end now

  // A machine that is not listening yet does not notice: press again until it has ended.
  void press_power_button();
  // Reads what QEMU has told.
  void read();
  // Has QEMU ever said that the button was pressed?
  bool answers() const { return powered_down_; }
  // Why the machine ended, in QEMU's words: "guest-shutdown", "guest-reset", "host-signal", ...; empty: not told.
  const std::string& end_reason() const { return end_reason_; }

 private:
  void send(const std::string& request);
  void take_line(const std::string& line);

  int ends_[2] = {-1, -1};
  std::string unread_;
  bool powered_down_ = false;
  std::string end_reason_;
};

}  // namespace kelda::tools
