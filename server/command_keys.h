// Which arguments of a command are keys.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "server/command.h"
#include "server/request_parser.h"

namespace kelda::server {

std::vector<std::string_view> keys_of(const Command& command, Arguments args);

// "0".."15".
std::optional<std::uint32_t> database_index(std::string_view text);

}  // namespace kelda::server
