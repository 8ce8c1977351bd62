#include "server/command.h"

#include <algorithm>
#include <functional>

#include "common/assert.h"
#include "server/text.h"

namespace kelda::server {

namespace {

// FNV-1a over the lower-case name.
std::size_t name_hash(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) {
    const auto folded = static_cast<unsigned char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    hash = (hash ^ folded) * 0x100000001b3;
  }
  return hash ^ hash >> 32;
}

}  // namespace

CommandTable::CommandTable() : slots_(kSlots, nullptr) {
  for (const auto family :
       {connection_commands(), client_commands(), string_commands(), number_commands(), range_commands(),
        key_commands(), scan_commands(), expire_commands(), transaction_commands(), admin_commands(), config_commands(),
        introspection_commands(), object_commands(), script_commands(), kelda_commands()}) {
    for (const Command& command : family) all_.push_back(&command);
  }
  std::ranges::sort(all_, {}, [](const Command* command) { return command->name; });
  KELDA_ASSERT(all_.size() < kSlots / 2);
  for (const Command* command : all_) {
    KELDA_ASSERT(find(command->name) == nullptr);
    std::size_t slot = name_hash(command->name) % kSlots;
    while (slots_[slot] != nullptr) slot = (slot + 1) % kSlots;
    slots_[slot] = command;
  }
  for (const Command* command : all_) {
    numbered_.push_back(command);
    for (const Command& subcommand : command->subcommands) numbered_.push_back(&subcommand);
  }
  std::ranges::sort(numbered_, std::less<>());
}

std::size_t CommandTable::number_of(const Command& command) const {
  return static_cast<std::size_t>(std::ranges::lower_bound(numbered_, &command, std::less<>()) - numbered_.begin());
}

const Command* CommandTable::find(std::string_view name) const {
  for (std::size_t slot = name_hash(name) % kSlots; slots_[slot] != nullptr; slot = (slot + 1) % kSlots) {
    if (equals_ignoring_case(slots_[slot]->name, name)) return slots_[slot];
  }
  return nullptr;
}

const Command* CommandTable::find_subcommand(const Command& container, std::string_view name) {
  for (const Command& command : container.subcommands) {
    if (equals_ignoring_case(command.name.substr(container.name.size() + 1), name)) return &command;
  }
  return nullptr;
}

}  // namespace kelda::server
