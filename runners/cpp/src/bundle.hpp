// A bundle, opened: a folder NAME.edge with a manifest and one artifact per format and precision.
#pragma once

#include <string>

#include "manifest.hpp"

namespace edgecnn {

// Others may replace the bundle meanwhile, but its files are not removed as long as this is there.
class HeldFolder {
  public:
    explicit HeldFolder(const std::string& folder);
    HeldFolder(const HeldFolder&) = delete;
    HeldFolder& operator=(const HeldFolder&) = delete;
    ~HeldFolder();

  private:
    int descriptor_;
};

// Reads and checks `folder`/manifest.json. Throws BundleError.
Manifest open_manifest(const std::string& folder);

// The artifact of this format that runs in this precision; the most exact where `precision` is "". Throws BundleError.
const Artifact& choose_artifact(const Manifest& manifest, const std::string& format, const std::string& precision,
                                const std::string& folder);

// The path of an artifact's file to open, after a check of the hash of every file that its runtime reads.
// Throws BundleError: a file is missing, differs from the manifest, or makes the runtime read an unlisted file.
std::string checked_path(const std::string& folder, const Artifact& artifact);

}  // namespace edgecnn
