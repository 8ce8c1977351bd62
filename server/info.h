// The text of INFO.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/server_state.h"

namespace kelda::server {

// `sections` in lower case; none, "default", "all" and "everything" mean all.
// The sections that a word of INFO's asks for, as bits; 0: it names none.
std::uint32_t info_sections(std::string_view word);
std::string info_text(ServerState& server, std::int64_t now_ms, std::uint32_t sections);

// How scrubbing stands, as names and values.
std::vector<std::pair<std::string, std::string>> scrub_fields(const ScrubStatus& status);

}  // namespace kelda::server
