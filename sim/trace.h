// The events of a simulation in their order, with virtual time: the last are kept to be read, all of them are hashed.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "sim/report.h"

namespace kelda::sim {

class Trace {
 public:
  explicit Trace(Report& report) : report_(report) {}

  template <class... Args>
  void event(fmt::format_string<Args...> format, Args&&... args) {
    add(fmt::format(format, std::forward<Args>(args)...));
  }
  // The first violation counts; later ones may follow from it. `kind` is short and without numbers.
  void fail(std::string_view kind, std::string_view what);
  bool failed() const { return report_.failed; }
  Report& report() { return report_; }

 private:
  void add(std::string_view text);
  Report& report_;
};

}  // namespace kelda::sim
