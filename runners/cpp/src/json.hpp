// JSON from strangers: bounded in depth, without duplicate keys, every value read with its type and place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "edgecnn/errors.hpp"

namespace edgecnn {

// Parses a document. Throws BundleError for malformed text, two equal keys in an object, or nesting beyond 64 levels.
nlohmann::json parse_json(const std::string& text, const std::string& source);

// A value in a document, and where it is, for messages.
class Value {
  public:
    Value(const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}

    Value member(const char* name) const;  // throws where there is none
    bool has(const char* name) const { return value_->is_object() && value_->contains(name); }
    std::vector<Value> items() const;
    std::vector<std::string> names() const;  // of an object's members
    bool is_null() const { return value_->is_null(); }

    std::int64_t integer() const;
    double number() const;
    bool boolean() const;
    std::string text() const;

    const std::string& place() const { return place_; }
    [[noreturn]] void refuse(const std::string& expected) const;

  private:
    const nlohmann::json* value_;
    std::string place_;
};

// A JSON value in at most 60 printable letters.
std::string shown(const nlohmann::json& value);
// Text with every letter that a terminal would obey written as in "\x1b", in at most 200 letters.
std::string shortened(const std::string& text);
// The letters of UTF-8 text, of which every one is whole.
std::vector<char32_t> letters(const std::string& text);
// Whether a terminal would obey it: a control character, or one that changes the direction of writing.
bool is_command(char32_t letter);

}  // namespace edgecnn
