// A converted network: its files, and what they are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.hpp"

namespace edgecnn {

struct FileRecord {
    std::string path;
    std::string sha256;
    std::int64_t bytes = 0;
};

struct Artifact {
    std::string format;
    std::string precision;
    std::string target;
    std::string device;
    std::vector<FileRecord> files;  // the one to open first
    double int8_mac_share = 0;      // measured when it was made
};

// Throws BundleError.
std::vector<Artifact> read_artifacts(const Value& value);

}  // namespace edgecnn
