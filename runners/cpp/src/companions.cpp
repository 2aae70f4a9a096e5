// As edgecnn/bundle/companions.py. Sources: onnx/onnx.proto (field numbers; protobuf's wire format), tflite's schema.fbs
// (FlatBuffers' binary format).
#include "companions.hpp"

#include <sys/stat.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <vector>

#include "edgecnn/errors.hpp"
#include "printable.hpp"

namespace edgecnn {
namespace {

constexpr int kMostDepth = 32;  // of nested graphs

struct Damaged : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::string content_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (!file.good() && !file.eof()) {
        throw BundleError(path + " cannot be read");
    }
    return content;
}

// --- ONNX

enum Message { kNone, kModel, kGraph, kNode, kAttribute, kTensor, kSparse, kFunction, kEntry, kTraining };

// The message in a field of a message; kNone for fields that cannot name a file.
Message inside(Message message, std::uint64_t field) {
    static const std::map<std::pair<int, std::uint64_t>, Message> fields = {
        {{kModel, 7}, kGraph},      {{kModel, 20}, kTraining}, {{kModel, 25}, kFunction},     {{kTraining, 1}, kGraph},
        {{kTraining, 2}, kGraph},   {{kGraph, 1}, kNode},      {{kGraph, 5}, kTensor},        {{kGraph, 15}, kSparse},
        {{kFunction, 7}, kNode},    {{kFunction, 11}, kAttribute}, {{kNode, 5}, kAttribute},  {{kAttribute, 5}, kTensor},
        {{kAttribute, 6}, kGraph},  {{kAttribute, 10}, kTensor},   {{kAttribute, 11}, kGraph}, {{kAttribute, 22}, kSparse},
        {{kAttribute, 23}, kSparse}, {{kSparse, 1}, kTensor},  {{kSparse, 2}, kTensor},       {{kTensor, 13}, kEntry},
    };
    const auto found = fields.find({message, field});
    return found == fields.end() ? kNone : found->second;
}

struct Field {
    std::uint64_t number = 0;
    int wire = 0;
    std::size_t start = 0;  // of its bytes, where wire is 2
    std::size_t end = 0;
    std::uint64_t value = 0;  // where wire is 0
};

class Onnx {
  public:
    explicit Onnx(const std::string& content) : content_(content) {}

    std::set<std::string> files() {
        walk(0, content_.size(), kModel, 0);
        return found_;
    }

  private:
    std::uint64_t varint(std::size_t& at, std::size_t end) const {
        std::uint64_t value = 0;
        for (int shift = 0;; shift += 7) {
            if (at >= end || shift > 63) {
                throw Damaged("a protobuf number without an end");
            }
            const auto byte = static_cast<unsigned char>(content_[at++]);
            value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
            if (byte < 0x80) {
                return value;
            }
        }
    }

    Field next(std::size_t& at, std::size_t end) const {
        Field field;
        const std::uint64_t key = varint(at, end);
        field.number = key >> 3;
        field.wire = static_cast<int>(key & 7);
        if (field.wire == 0) {
            field.value = varint(at, end);
            return field;
        }
        std::uint64_t length = field.wire == 1 ? 8 : 4;
        if (field.wire == 2) {
            length = varint(at, end);
        } else if (field.wire != 1 && field.wire != 5) {
            throw Damaged("wire type " + std::to_string(field.wire) + " in a protobuf message");
        }
        if (length > end - at) {
            throw Damaged("a protobuf field that ends after its message");
        }
        field.start = at;
        field.end = at = at + static_cast<std::size_t>(length);
        return field;
    }

    std::string text(const Field& field) const {
        return content_.substr(field.start, std::min<std::size_t>(field.end - field.start, 4096));
    }

    // Collects the files that one message names.
    void walk(std::size_t at, std::size_t end, Message message, int depth) {
        if (depth > kMostDepth) {
            throw Damaged("graphs nested more than 32 deep");
        }
        std::map<std::uint64_t, std::string> entry;
        std::string operation;
        std::vector<Field> attributes;
        while (at < end) {
            const Field field = next(at, end);
            if (field.wire != 2) {
                continue;
            }
            if (message == kEntry) {
                entry[field.number] = text(field);
            } else if (message == kNode && field.number == 4) {
                operation = text(field);
            } else if (message == kNode && field.number == 5) {
                attributes.push_back(field);
            }
            const Message inner = inside(message, field.number);
            if (inner != kNone) {
                walk(field.start, field.end, inner, depth + 1);
            }
        }
        if (message == kEntry && entry[1] == "location") {
            found_.insert(entry[2]);
        }
        if (operation == "EPContext") {
            add_context(attributes);
        }
    }

    // The file of a compiled context that is stored apart (ONNX Runtime's EPContext, embed_mode 0).
    void add_context(const std::vector<Field>& attributes) {
        std::string name;
        bool embedded = true;
        for (const Field& attribute : attributes) {
            std::string key, value;
            std::uint64_t number = 0;
            for (std::size_t at = attribute.start; at < attribute.end;) {
                const Field field = next(at, attribute.end);
                if (field.number == 1 && field.wire == 2) {
                    key = text(field);
                } else if (field.number == 3 && field.wire == 0) {
                    number = field.value;
                } else if (field.number == 4 && field.wire == 2) {
                    value = text(field);
                }
            }
            if (key == "embed_mode") {
                embedded = number != 0;
            } else if (key == "ep_cache_context") {
                name = value;
            }
        }
        if (!embedded) {
            found_.insert(name);
        }
    }

    const std::string& content_;
    std::set<std::string> found_;
};

// --- TFLite

class TfLite {
  public:
    explicit TfLite(const std::string& content) : content_(content) {}

    std::set<std::string> files() const {
        if (content_.compare(4, 4, "TFL3") != 0) {
            throw Damaged("it doesn't begin like a TFLite file");
        }
        std::set<std::string> names;
        const std::int64_t groups = field(number<std::uint32_t>(0), kExternalGroups);
        if (groups < 0) {
            return names;
        }
        const std::int64_t start = groups + number<std::uint32_t>(groups);
        const std::int64_t count = number<std::uint32_t>(start);
        if (count > 10'000) {
            throw Damaged(std::to_string(count) + " groups of external buffers");
        }
        for (std::int64_t index = 0; index < count; ++index) {
            const std::int64_t place = start + 4 + 4 * index;
            std::int64_t name = field(place + number<std::uint32_t>(place), kGroupName);
            if (name < 0) {
                throw Damaged("a group of external buffers without a name");
            }
            name += number<std::uint32_t>(name);
            const std::int64_t length = std::min<std::int64_t>(number<std::uint32_t>(name), 4096);
            names.insert(content_.substr(static_cast<std::size_t>(name + 4), static_cast<std::size_t>(length)));
        }
        return names;
    }

  private:
    static constexpr int kExternalGroups = 8;  // numbers of fields in the tables Model, ExternalBufferGroup
    static constexpr int kGroupName = 0;

    template <typename T>
    T number(std::int64_t place) const {
        if (place < 0 || place + static_cast<std::int64_t>(sizeof(T)) > static_cast<std::int64_t>(content_.size())) {
            throw Damaged("an offset leads out of the file");
        }
        T value;
        std::memcpy(&value, content_.data() + place, sizeof(T));  // little-endian, as all machines that run this
        return value;
    }

    // Position of a field in a table; -1 where it is absent.
    std::int64_t field(std::int64_t table, int index) const {
        const std::int64_t layout = table - number<std::int32_t>(table);
        const std::int64_t place = 4 + 2 * index;
        if (place + 2 > number<std::uint16_t>(layout)) {
            return -1;
        }
        const std::uint16_t offset = number<std::uint16_t>(layout + place);
        return offset == 0 ? -1 : table + offset;
    }

    const std::string& content_;
};

std::set<std::string> openvino_files(const std::string& path) {
    const std::string weights = path.substr(0, path.rfind('.')) + ".bin";
    struct stat there;
    return lstat(weights.c_str(), &there) == 0 ? std::set<std::string>{weights.substr(weights.rfind('/') + 1)}
                                               : std::set<std::string>{};
}

}  // namespace

std::set<std::string> companions_of(const std::string& path) {
    const std::string suffix = path.substr(path.rfind('.'));
    if (suffix == ".xml") {
        return openvino_files(path);
    }
    std::set<std::string> names;
    try {
        const std::string content = content_of(path);
        names = suffix == ".onnx" ? Onnx(content).files() : TfLite(content).files();
    } catch (const std::logic_error& outside) {
        throw BundleError(path + " is not a readable " + suffix + " file; convert again");
    } catch (const Damaged& damaged) {
        throw BundleError(path + " is not a readable " + suffix + " file: " + damaged.what() + "; convert again");
    }
    for (const std::string& name : names) {
        if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string("/\\\0", 3)) != std::string::npos) {
            throw BundleError(path + " refers to '" + shortened(name) + "', a file outside the bundle: it is not opened");
        }
    }
    return names;
}

}  // namespace edgecnn
