// The text of INFO.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/server_state.h"

namespace kelda::server {

// `sections` in lower case; none, "default", "all" and "everything" mean all.
std::string info_text(ServerState& server, std::int64_t now_ms, const std::vector<std::string>& sections);

}  // namespace kelda::server
