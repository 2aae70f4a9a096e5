// JSON from strangers: bounded in depth, without duplicate keys, every value read with its type and place.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace edgecnn {

// A value in a document, and where it is, for messages.
class Value {
  public:
    Value(const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}

    Value member(const char* name) const;  // throws where there is none
    bool has(const char* name) const;
    std::vector<Value> items() const;
    std::vector<std::string> names() const;  // of an object's members
    bool is_null() const;

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

// A document, which outlives its values.
class Document {
  public:
    // Throws BundleError for malformed text, two equal keys in an object, or nesting beyond 64 levels.
    Document(const std::string& text, const std::string& source);
    ~Document();

    Value root() const;

  private:
    std::unique_ptr<nlohmann::json> parsed_;
};

}  // namespace edgecnn
