// The checks are those of edgecnn/bundle/contract.py.
#include "artifact.hpp"

#include <algorithm>
#include <cctype>
#include <set>

#include "fields.hpp"
#include "printable.hpp"

namespace edgecnn {
namespace {

bool is_space(char32_t letter) {
    return letter == 0x20 || letter == 0xA0 || letter == 0x1680 || (letter >= 0x2000 && letter <= 0x200A) ||
           letter == 0x202F || letter == 0x205F || letter == 0x3000;
}

FileRecord read_file(const Value& value) {
    FileRecord record{value.member("path").text(), value.member("sha256").text(), 0};
    const std::string& path = record.path;
    const auto found = letters(path);
    if (found.empty() || path.size() > 255 || std::string(".-~").find(path[0]) != std::string::npos ||
        path.find_first_of("/\\:*?\"<>|") != std::string::npos || is_space(found.front()) || is_space(found.back()) ||
        std::any_of(found.begin(), found.end(), is_command)) {
        value.member("path").refuse("the name of a file next to the manifest");
    }
    const std::string& hash = record.sha256;
    if (hash.size() != 64 || hash.find_first_not_of("0123456789abcdef") != std::string::npos) {
        value.member("sha256").refuse("64 hexadecimal digits");
    }
    record.bytes = integer_in(value.member("bytes"), 0, std::int64_t{1} << 40);
    return record;
}

bool is_manifest(std::string path) {
    std::transform(path.begin(), path.end(), path.begin(), [](unsigned char c) { return c < 0x80 ? std::tolower(c) : c; });
    return path == "manifest.json";
}

std::vector<FileRecord> read_files(const Value& value) {
    std::vector<FileRecord> files;
    std::set<std::string> names;
    for (const Value& item : value.items()) {
        files.push_back(read_file(item));
        if (is_manifest(files.back().path) || !names.insert(files.back().path).second) {
            item.member("path").refuse("a file of its own");
        }
    }
    if (files.empty()) {
        value.refuse("at least one file");
    }
    return files;
}

double read_int8_share(const Value& artifact) {
    if (!artifact.has("evidence") || !artifact.member("evidence").has("quantization")) {
        return 0;
    }
    const Value made = artifact.member("evidence").member("quantization");
    return made.is_null() ? 0 : made.member("int8_mac_share").number();
}

}  // namespace

std::vector<Artifact> read_artifacts(const Value& value) {
    std::vector<Artifact> artifacts;
    std::set<std::vector<std::string>> keys;
    for (const Value& item : few(value)) {
        Artifact artifact;
        artifact.format = checked_name(item.member("format"));
        artifact.precision = checked_name(item.member("precision"));
        artifact.target = text_or(item, "target", "");
        artifact.device = text_or(item, "device", "");
        for (const char* name : {"target", "device"}) {
            if (!text_or(item, name, "").empty()) {
                checked_name(item.member(name));
            }
        }
        artifact.files = read_files(item.member("files"));
        artifact.int8_mac_share = read_int8_share(item);
        if (!keys.insert({artifact.format, artifact.precision, artifact.target}).second) {
            item.refuse("of another format, precision or target than the others");
        }
        artifacts.push_back(std::move(artifact));
    }
    return artifacts;
}

}  // namespace edgecnn
