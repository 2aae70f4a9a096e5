// As edgecnn/bundle/bundle.py.
#include "bundle.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "companions.hpp"
#include "edgecnn/errors.hpp"
#include "printable.hpp"

namespace edgecnn {
namespace {

constexpr std::int64_t kLargestManifest = 64 << 20;

using OpenFile = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

// Opens a file for reading; nothing but regular files, since a pipe without a writer would block for ever.
OpenFile open_file(const std::string& path, std::int64_t& size) {
    struct stat there;
    OpenFile file(nullptr, std::fclose);
    if (stat(path.c_str(), &there) == 0 && S_ISREG(there.st_mode)) {
        file.reset(std::fopen(path.c_str(), "rbe"));
    } else if (errno == 0 || access(path.c_str(), F_OK) == 0) {
        throw BundleError(path + " cannot be read: it is not a file");
    }
    if (!file || fstat(fileno(file.get()), &there) != 0) {
        throw BundleError(path + " cannot be read: " + std::strerror(errno) + "; copy the bundle again");
    }
    size = there.st_size;
    return file;
}

std::string sha256_of(std::FILE* file) {
    const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> digest(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    std::vector<unsigned char> block(1 << 20);
    std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
    bool done = digest && EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr) == 1;
    for (std::size_t read = 1; done && read > 0;) {
        read = std::fread(block.data(), 1, block.size(), file);
        done = EVP_DigestUpdate(digest.get(), block.data(), read) == 1;
    }
    unsigned int length = 0;
    if (!done || EVP_DigestFinal_ex(digest.get(), hash.data(), &length) != 1) {
        throw BundleError("SHA-256 of a file could not be computed");
    }
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
        char digits[3];
        std::snprintf(digits, sizeof digits, "%02x", hash[i]);
        text += digits;
    }
    return text;
}

void check_file(const std::string& folder, const FileRecord& record) {
    const std::string path = folder + "/" + record.path;
    std::int64_t size = 0;
    const OpenFile file = open_file(path, size);
    const std::string found = size == record.bytes ? sha256_of(file.get()) : "";
    if (found != record.sha256) {
        const std::string differs = found.empty() ? std::to_string(size) + " bytes" : "SHA-256 " + found.substr(0, 12);
        const std::string says = found.empty() ? std::to_string(record.bytes) : record.sha256.substr(0, 12);
        throw BundleError(path + " is not the file that was verified (" + differs + ", the manifest says " + says +
                          "): copy the bundle again, or convert again");
    }
}

std::string suffix_of(const std::string& format) {
    return format == "openvino" ? ".xml" : "." + format;
}

bool runs_as(const Artifact& artifact, const std::string& precision) {
    return precision.empty() || artifact.precision == precision ||
           (precision == "bf16" && artifact.precision == "fp32" && artifact.format == "openvino");
}

}  // namespace

HeldFolder::HeldFolder(const std::string& folder) : descriptor_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ >= 0) {
        flock(descriptor_, LOCK_SH);  // a file system without locks has none to wait for
    }
}

HeldFolder::~HeldFolder() {
    if (descriptor_ >= 0) {
        close(descriptor_);
    }
}

Manifest open_manifest(const std::string& folder) {
    const std::string path = folder + "/manifest.json";
    struct stat there;
    if (stat(path.c_str(), &there) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
        const bool is_folder = stat(folder.c_str(), &there) == 0 && S_ISDIR(there.st_mode);
        throw BundleError(folder + (is_folder ? " is not a bundle (no manifest.json in it)" : " does not exist") +
                          "; make one with `edgecnn convert MODEL --out NAME.edge`");
    }
    std::int64_t size = 0;
    const OpenFile file = open_file(path, size);
    if (size > kLargestManifest) {
        throw BundleError(path + " cannot be read: larger than 64 MB, the limit for such files");
    }
    std::string text(static_cast<std::size_t>(size), '\0');
    text.resize(std::fread(text.data(), 1, text.size(), file.get()));
    return read_manifest(text, path);
}

const Artifact& choose_artifact(const Manifest& manifest, const std::string& format, const std::string& precision,
                                const std::string& folder) {
    static const std::array<const char*, 6> order = {"fp32", "fp16", "bf16", "int8", "int8-dynamic", "int8-a16"};
    const auto rank = [](const Artifact& each) { return std::find(order.begin(), order.end(), each.precision) - order.begin(); };
    const Artifact* chosen = nullptr;
    std::string held;
    for (const Artifact& each : manifest.artifacts) {
        held += (held.empty() ? "" : ", ") + each.format + " " + each.precision;
        const bool fits = each.format == format && each.device.empty() && each.target.empty() && runs_as(each, precision);
        if (fits && (chosen == nullptr || rank(each) < rank(*chosen))) {
            chosen = &each;
        }
    }
    if (chosen == nullptr) {
        throw BundleError(folder + " holds no " + format + (precision.empty() ? "" : " " + precision) +
                          " artifact; it holds: " + (held.empty() ? "none" : shortened(held)));
    }
    return *chosen;
}

std::string checked_path(const std::string& folder, const Artifact& artifact) {
    for (const FileRecord& record : artifact.files) {
        check_file(folder, record);
    }
    const std::string& name = artifact.files.front().path;
    const std::string path = folder + "/" + name, wanted = suffix_of(artifact.format);
    if (name.size() <= wanted.size() || name.compare(name.size() - wanted.size(), wanted.size(), wanted) != 0) {
        throw BundleError(path + ": expected a file of " + artifact.format + " to end in " + wanted + "; convert again");
    }
    for (const std::string& read : companions_of(path)) {
        const bool listed = std::any_of(artifact.files.begin(), artifact.files.end(),
                                        [&](const FileRecord& record) { return record.path == read; });
        if (!listed) {
            throw BundleError(path + " makes its runtime read '" + shortened(read) +
                              "', which the manifest doesn't list, so it was never verified: remove that file if it "
                              "exists, or convert again");
        }
    }
    return path;
}

}  // namespace edgecnn
