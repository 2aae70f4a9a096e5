#include "fields.hpp"

#include <algorithm>

#include "edgecnn/errors.hpp"
#include "printable.hpp"

namespace edgecnn {

std::int64_t integer_in(const Value& value, std::int64_t low, std::int64_t high) {
    const std::int64_t found = value.integer();
    if (found < low || found > high) {
        value.refuse(std::to_string(low) + " to " + std::to_string(high));
    }
    return found;
}

std::int64_t integer_or(const Value& owner, const char* name, std::int64_t absent, std::int64_t low, std::int64_t high) {
    return owner.has(name) ? integer_in(owner.member(name), low, high) : absent;
}

double share_or(const Value& owner, const char* name, double absent) {
    if (!owner.has(name)) {
        return absent;
    }
    const Value value = owner.member(name);
    const double found = value.number();
    if (!(found >= 0 && found <= 1)) {
        value.refuse("in 0..1");
    }
    return found;
}

bool boolean_or(const Value& owner, const char* name, bool absent) {
    return owner.has(name) ? owner.member(name).boolean() : absent;
}

std::string text_or(const Value& owner, const char* name, const std::string& absent) {
    return owner.has(name) ? owner.member(name).text() : absent;
}

// Where `words` has the value of a member; the first where there is none.
int word_in(const Value& owner, const char* name, const std::vector<std::string>& words) {
    if (!owner.has(name)) {
        return 0;
    }
    const Value value = owner.member(name);
    const auto found = std::find(words.begin(), words.end(), value.text());
    if (found == words.end()) {
        value.refuse("one of those that edgecnn knows");
    }
    return static_cast<int>(found - words.begin());
}

std::string checked_name(const Value& value) {
    const std::string text = value.text();
    const auto found = letters(text);
    if (found.empty() || found.size() > kLongestName || std::any_of(found.begin(), found.end(), is_command)) {
        value.refuse("1 to 1000 letters without control characters");
    }
    return text;
}

std::vector<Value> few(const Value& value) {
    auto found = value.items();
    if (found.size() > kMostNames) {
        throw BundleError(value.place() + " must be at most 100000, got " + std::to_string(found.size()));
    }
    return found;
}

}  // namespace edgecnn
