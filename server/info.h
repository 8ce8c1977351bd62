// The text of INFO.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/server_state.h"

namespace kelda::server {

// `sections` in lower case; none, "default", "all" and "everything" mean all.
std::string info_text(ServerState& server, std::int64_t now_ms, const std::vector<std::string>& sections);

// How scrubbing stands, as names and values.
std::vector<std::pair<std::string, std::string>> scrub_fields(const ScrubStatus& status);

}  // namespace kelda::server
