// The phenomena that the checker knows, by Adya's names where he has one, and the isolation levels that exclude them.
//
// Adya, Liskov, O'Neil: "Generalized Isolation Level Definitions", ICDE 2000. Kingsbury, Alvaro: "Elle: Inferring
// Isolation Anomalies from Experimental Observations", VLDB 2020. Cerone, Gotsman: "Analysing Snapshot Isolation",
// PODC 2016, for kGNonadjacent.
#pragma once

#include <cstdint>
#include <string>

namespace kelda::history {

enum class Anomaly : std::uint8_t {
  kGarbageRead,        // a value that nobody wrote
  kDuplicateElement,   // one list read holds a value twice
  kIncompatibleOrder,  // no single order of the key's versions explains all reads
  kDirtyWrite,         // a committed version stands on an aborted one, or an aborted one is in the known order
  kG1a,                // aborted read
  kG1b,                // intermediate read: another's write that was not its last to the key
  kInternal,           // a transaction does not see its own earlier reads and writes
  kLostUpdate,         // two committed ones read the same version of a key and replaced it
  kG0,                 // cycle of write dependencies
  kG1c,                // cycle of write and read dependencies
  kGSingle,            // cycle with exactly one anti-dependency
  kGNonadjacent,       // cycle with several, no two of them in a row
  kG2,                 // cycle with anti-dependencies
  kCount
};

// Which edges a cycle needed beside dependencies on data: none, also the order in one process, also that in time.
enum class Order : std::uint8_t { kData, kProcess, kRealTime };

enum class Level : std::uint8_t {
  kReadUncommitted,
  kReadCommitted,
  kSnapshot,
  kSerializable,
  kStrictSerializable,
  kCount
};

// For instance "G-single-realtime".
std::string anomaly_name(Anomaly anomaly, Order order = Order::kData);
const char* level_name(Level level);
bool level_excludes(Level level, Anomaly anomaly, Order order);

}  // namespace kelda::history
