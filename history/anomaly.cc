#include "history/anomaly.h"

#include <iterator>

namespace kelda::history {

namespace {

struct AnomalyRow {
  const char* name;
  Level weakest_excluding;  // this level and all above it
};

// By Anomaly. A version order that is not total, or that holds a value twice, is no history at any level.
constexpr AnomalyRow kAnomalies[] = {
    {"garbage read", Level::kReadUncommitted},
    {"duplicate element", Level::kReadUncommitted},
    {"incompatible order", Level::kReadUncommitted},
    {"dirty write", Level::kReadUncommitted},
    {"G1a", Level::kReadCommitted},
    {"G1b", Level::kReadCommitted},
    {"internal", Level::kSnapshot},
    {"lost update", Level::kSnapshot},
    {"G0", Level::kReadUncommitted},
    {"G1c", Level::kReadCommitted},
    {"G-single", Level::kSnapshot},
    {"G-nonadjacent", Level::kSnapshot},
    {"G2", Level::kSerializable},
};
static_assert(std::size(kAnomalies) == static_cast<std::size_t>(Anomaly::kCount));

constexpr const char* kLevels[] = {"read uncommitted", "read committed", "snapshot", "serializable",
                                   "strict serializable"};
static_assert(std::size(kLevels) == static_cast<std::size_t>(Level::kCount));

}  // namespace

std::string anomaly_name(Anomaly anomaly, Order order) {
  constexpr const char* kSuffixes[] = {"", "-process", "-realtime"};
  return std::string(kAnomalies[static_cast<int>(anomaly)].name) + kSuffixes[static_cast<int>(order)];
}

const char* level_name(Level level) {
  return kLevels[static_cast<int>(level)];
}

bool level_excludes(Level level, Anomaly anomaly, Order order) {
  if (order != Order::kData) return level == Level::kStrictSerializable;
  return level >= kAnomalies[static_cast<int>(anomaly)].weakest_excluding;
}

}  // namespace kelda::history
