// Reads and writes of registers, as operations.
#pragma once

#include <memory>

#include "sim/operation.h"

namespace kelda::sim {

Version random_version(const Config& config, Prng& dice);
std::unique_ptr<Operation> write_register(World& world, Prng& dice, Register& target);
// `own`: the client is the owner and has nothing under way there, so that a doubt is resolved.
std::unique_ptr<Operation> read_register(World& world, Prng& dice, Register& target, bool own);

}  // namespace kelda::sim
