// One artifact, open on one device with OpenVINO: a frame in, tensors out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "finish.hpp"
#include "manifest.hpp"

namespace edgecnn {

class Backend {
  public:
    // Throws DeviceError: the device does not exist, OpenVINO fails on the file, or it would not run as requested.
    Backend(const std::string& path, const Artifact& artifact, const Manifest& manifest, const std::string& device,
            const std::string& precision, int threads);
    ~Backend();

    std::uint8_t* frame();  // of the whole batch: written before `infer`
    // The outputs, valid until the next call. Throws DeviceError.
    const Outputs& infer();

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace edgecnn
