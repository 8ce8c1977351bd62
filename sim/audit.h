// Reads everything from a server at a moment when nobody writes, and holds it against what clients were told.
#pragma once

#include "sim/instance.h"
#include "sim/world.h"

namespace kelda::sim {

// Through a connection of its own. Nothing acknowledged is missing, nothing is half there, nothing is there that nobody
// wrote. Resolves what was in doubt. An error only where the disk destroyed data (World::damaged) or has just failed.
Result<> audit(World& world, Instance& instance);

// check_disk() of a copy; adds a violation if it is not sound. False if nothing could be said.
bool check_image(World& world, const blockdev::MemoryDevice& disk, std::string_view when, bool expect_clean);

}  // namespace kelda::sim
