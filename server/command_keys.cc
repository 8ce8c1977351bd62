#include "server/command_keys.h"

#include "server/limits.h"
#include "server/text.h"

namespace kelda::server {

std::vector<std::string_view> keys_of(const Command& command, Arguments args) {
  std::vector<std::string_view> keys;
  if (command.first_key == 0) return keys;
  const auto count = static_cast<int>(args.size());
  const int last = command.last_key < 0 ? count + command.last_key : command.last_key;
  for (int i = command.first_key; i <= last && i < count; i += command.key_step) {
    keys.push_back(args[static_cast<std::size_t>(i)]);
  }
  return keys;
}

std::optional<std::uint32_t> database_index(std::string_view text) {
  const auto number = parse_integer(text);
  if (!number || *number < 0 || *number >= kDatabaseCount) return std::nullopt;
  return static_cast<std::uint32_t>(*number);
}

}  // namespace kelda::server
