// Numbers and words in the forms that Redis accepts and prints. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kelda::server {

// Exactly the text that printing the number gives: no sign '+', no leading zeroes or spaces, no "-0".
std::optional<std::int64_t> parse_integer(std::string_view text);
std::optional<std::uint64_t> parse_unsigned(std::string_view text);
// A finite or infinite decimal number, the whole text; not a NaN.
std::optional<long double> parse_long_double(std::string_view text);
// Up to 17 digits after the point, trailing zeroes removed, never an exponent.
std::string format_long_double(long double value);

// Appends a decimal number without allocating more than `out` does.
void append_integer(std::string& out, std::int64_t value);

// ASCII only.
bool equals_ignoring_case(std::string_view a, std::string_view b);
void append_lower(std::string& out, std::string_view text);
std::string to_lower(std::string_view text);

// Splits a line as an inline command: blanks separate, "..." with \n \r \t \b \a \xHH escapes, '...' with \' only.
// Nothing on unbalanced quotes.
std::optional<std::vector<std::string>> split_line(std::string_view line);

// "1.50M", as INFO prints sizes.
std::string human_bytes(std::uint64_t bytes);

}  // namespace kelda::server
