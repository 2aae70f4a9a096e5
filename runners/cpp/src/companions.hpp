// Finds the other files that a runtime reads with an artifact: all must be listed in the manifest, with a hash.
#pragma once

#include <set>
#include <string>

namespace edgecnn {

// Names of the other files that are read when `path` (.xml, .onnx or .tflite) is opened.
// Throws BundleError: the file is not what its suffix says, or names a file outside the bundle.
std::set<std::string> companions_of(const std::string& path);

}  // namespace edgecnn
