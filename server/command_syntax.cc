#include "server/command_syntax.h"

#include <string>
#include <vector>

#include "server/text.h"

namespace kelda::server {

namespace {

struct Argument {
  std::string name;
  std::string_view type;  // "string", "pure-token", "oneof", "block", "key", ...
  std::string_view token = {};
  bool optional = false, multiple = false;
  std::vector<Argument> parts = {};
};

// Splits at `separator` outside of brackets.
std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '[') ++depth;
    if (i < text.size() && text[i] == ']') --depth;
    if (i < text.size() && (depth > 0 || text[i] != separator)) continue;
    if (i > begin) parts.push_back(text.substr(begin, i - begin));
    begin = i + 1;
  }
  return parts;
}

bool is_token(std::string_view word) {
  return word[0] >= 'A' && word[0] <= 'Z';
}

std::string_view type_of(std::string_view word) {
  if (word == "key" || word == "newkey" || word == "source" || word == "destination") return "key";
  if (word == "pattern") return "pattern";
  if (word.starts_with("unix-time")) return "unix-time";
  if (word == "seconds" || word == "milliseconds" || word == "increment" || word == "decrement" || word == "count" ||
      word == "index" || word == "offset" || word == "cursor") {
    return "integer";
  }
  return "string";
}

std::vector<Argument> parse_list(std::string_view text);

Argument parse_choice(std::string_view text) {
  const auto words = split(text, ' ');
  if (words.size() == 1 && is_token(words[0]))
    return {.name = to_lower(words[0]), .type = "pure-token", .token = words[0]};
  if (words.size() == 2 && is_token(words[0]) && words[1][0] != '[') {
    return {.name = std::string(words[1]), .type = type_of(words[1]), .token = words[0]};
  }
  if (words.size() == 1) return {.name = std::string(words[0]), .type = type_of(words[0])};
  const bool with_token = is_token(words[0]);
  Argument block{.name = to_lower(words[0]), .type = "block", .token = with_token ? words[0] : std::string_view()};
  block.parts = parse_list(with_token ? text.substr(words[0].size() + 1) : text);
  return block;
}

Argument parse_choices(std::string_view text) {
  const auto choices = split(text, '|');
  if (choices.size() == 1) return parse_choice(text);
  Argument oneof{.name = "choice", .type = "oneof"};
  for (const std::string_view choice : choices) oneof.parts.push_back(parse_choice(choice));
  return oneof;
}

// "[key value ...]" after "key value".
bool is_repetition(std::string_view word) {
  return word.starts_with('[') && word.ends_with(" ...]");
}

std::vector<Argument> parse_list(std::string_view text) {
  std::vector<Argument> arguments;
  const auto words = split(text, ' ');
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (is_repetition(word)) {
      const std::size_t repeated = split(word.substr(1, word.size() - 6), ' ').size();
      Argument block{.name = "data", .type = "block", .multiple = true};
      if (repeated == 1 || repeated > arguments.size()) {
        if (arguments.empty())
          arguments.push_back(
              {.name = std::string(word.substr(1, word.size() - 6)), .type = "string", .optional = true});
        arguments.back().multiple = true;
        continue;
      }
      block.parts.assign(arguments.end() - static_cast<std::ptrdiff_t>(repeated), arguments.end());
      arguments.resize(arguments.size() - repeated);
      arguments.push_back(std::move(block));
    } else if (word.starts_with('[')) {
      arguments.push_back(parse_choices(word.substr(1, word.size() - 2)));
      arguments.back().optional = true;
    } else {
      // A token outside of brackets takes the next word along.
      const bool joined =
          is_token(word) && word.find('|') == std::string_view::npos && i + 1 < words.size() && words[i + 1][0] != '[';
      const auto length =
          joined ? static_cast<std::size_t>(words[i + 1].data() + words[i + 1].size() - word.data()) : word.size();
      arguments.push_back(parse_choices({word.data(), length}));
      if (joined) ++i;
    }
  }
  return arguments;
}

void write_arguments(const std::vector<Argument>& arguments, Reply& reply);

void write_argument(const Argument& argument, Reply& reply) {
  const bool flags = argument.optional || argument.multiple;
  reply.map(2 + (argument.type == "key" ? 1 : 0) + (argument.token.empty() ? 0 : 1) + (flags ? 1 : 0) +
            (argument.parts.empty() ? 0 : 1));
  reply.bulk("name");
  reply.bulk(argument.name);
  reply.bulk("type");
  reply.bulk(argument.type);
  if (argument.type == "key") {
    reply.bulk("key_spec_index");
    reply.integer(0);
  }
  if (!argument.token.empty()) {
    reply.bulk("token");
    reply.bulk(argument.token);
  }
  if (flags) {
    reply.bulk("flags");
    reply.array((argument.optional ? 1 : 0) + (argument.multiple ? 1 : 0));
    if (argument.optional) reply.simple("optional");
    if (argument.multiple) reply.simple("multiple");
  }
  if (argument.parts.empty()) return;
  reply.bulk("arguments");
  write_arguments(argument.parts, reply);
}

void write_arguments(const std::vector<Argument>& arguments, Reply& reply) {
  reply.array(arguments.size());
  for (const Argument& argument : arguments) write_argument(argument, reply);
}

}  // namespace

void write_syntax(std::string_view syntax, Reply& reply) {
  write_arguments(parse_list(syntax), reply);
}

}  // namespace kelda::server
