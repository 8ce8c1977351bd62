// COMMAND DOCS tells clients a command's arguments as a tree, from which redis-cli makes its hints. Kelda keeps them as
// a person writes them, "key value [NX|XX] [EX seconds|KEEPTTL] [key ...]", and makes the tree of that.
//
//   list    := item { ' ' item }
//   item    := '[' choices ']' | choices
//   choices := sequence { '|' sequence }      alternatives
//   an upper-case word is a token and belongs to the lower-case words after it; "x [x ...]" is x, repeatable
#pragma once

#include <string_view>

#include "server/reply.h"

namespace kelda::server {

// Writes the array of arguments.
void write_syntax(std::string_view syntax, Reply& reply);

}  // namespace kelda::server
