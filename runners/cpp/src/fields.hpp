// Members of a document, read with their limits; each throws BundleError with the member's place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.hpp"

namespace edgecnn {

constexpr std::size_t kMostNames = 100'000;
constexpr std::size_t kLongestName = 1000;

std::int64_t integer_in(const Value& value, std::int64_t low, std::int64_t high);

// A member, or `absent` where there is none.
std::int64_t integer_or(const Value& owner, const char* name, std::int64_t absent, std::int64_t low, std::int64_t high);
double share_or(const Value& owner, const char* name, double absent);  // in 0..1
bool boolean_or(const Value& owner, const char* name, bool absent);
std::string text_or(const Value& owner, const char* name, const std::string& absent);
// Where `words` has the value of a member; the first where there is none.
int word_in(const Value& owner, const char* name, const std::vector<std::string>& words);

// A text of 1 to 1000 letters without control characters.
std::string checked_name(const Value& value);
// A list of at most 100 000.
std::vector<Value> few(const Value& value);

}  // namespace edgecnn
