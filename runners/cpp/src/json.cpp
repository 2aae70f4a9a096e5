#include "json.hpp"

#include <set>

#include <nlohmann/json.hpp>

#include "edgecnn/errors.hpp"
#include "printable.hpp"

namespace edgecnn {
namespace {

constexpr int kMostDepth = 64;

// A JSON value in at most 60 printable letters.
std::string shown(const nlohmann::json& value) {
    using Handler = nlohmann::json::error_handler_t;
    const std::string whole = value.is_structured() ? value.type_name() : value.dump(-1, ' ', true, Handler::replace);
    return whole.size() > 60 ? whole.substr(0, 57) + "..." : whole;
}

nlohmann::json parse_json(const std::string& text, const std::string& source) {
    std::vector<std::set<std::string>> keys;  // of each open object
    using Event = nlohmann::json::parse_event_t;
    const auto watch = [&](int depth, Event event, nlohmann::json& parsed) {
        if (depth > kMostDepth) {
            throw BundleError(source + " is damaged: nested more than " + std::to_string(kMostDepth) + " levels deep");
        }
        if (event == Event::object_start) {
            keys.emplace_back();
        } else if (event == Event::object_end) {
            keys.pop_back();
        } else if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
            throw BundleError(source + " is damaged: the key " + shown(parsed) + " stands twice in an object");
        }
        return true;
    };
    try {
        return nlohmann::json::parse(text, watch);
    } catch (const nlohmann::json::exception& failed) {
        throw BundleError(source + " is damaged: " + shortened(failed.what()) + "; convert again");
    }
}

}  // namespace

Document::Document(const std::string& text, const std::string& source)
    : parsed_(std::make_unique<nlohmann::json>(parse_json(text, source))) {}

Document::~Document() = default;

Value Document::root() const {
    return Value(*parsed_, "");
}

bool Value::has(const char* name) const {
    return value_->is_object() && value_->contains(name);
}

bool Value::is_null() const {
    return value_->is_null();
}

Value Value::member(const char* name) const {
    if (!value_->is_object()) {
        refuse("an object");
    }
    const auto found = value_->find(name);
    const std::string place = place_.empty() ? name : place_ + "." + name;
    if (found == value_->end()) {
        throw BundleError("the field '" + place + "' is missing");
    }
    return Value(*found, place);
}

std::vector<Value> Value::items() const {
    if (!value_->is_array()) {
        refuse("a list");
    }
    std::vector<Value> found;
    found.reserve(value_->size());
    for (const auto& item : *value_) {
        found.emplace_back(item, place_ + "[" + std::to_string(found.size()) + "]");
    }
    return found;
}

std::vector<std::string> Value::names() const {
    if (!value_->is_object()) {
        refuse("an object");
    }
    std::vector<std::string> found;
    for (const auto& entry : value_->items()) {
        found.push_back(entry.key());
    }
    return found;
}

std::int64_t Value::integer() const {
    if (!value_->is_number_integer() || (value_->is_number_unsigned() && value_->get<std::uint64_t>() > INT64_MAX)) {
        refuse("a whole number");
    }
    return value_->get<std::int64_t>();
}

double Value::number() const {
    if (!value_->is_number()) {
        refuse("a number");
    }
    return value_->get<double>();
}

bool Value::boolean() const {
    if (!value_->is_boolean()) {
        refuse("true or false");
    }
    return value_->get<bool>();
}

std::string Value::text() const {
    if (!value_->is_string()) {
        refuse("a text");
    }
    return value_->get<std::string>();
}

void Value::refuse(const std::string& expected) const {
    throw BundleError(place_ + " must be " + expected + ", got " + shown(*value_));
}

}  // namespace edgecnn
