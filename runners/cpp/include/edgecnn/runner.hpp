// A runner: takes a picture of any size, returns a result in the picture's pixels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "edgecnn/errors.hpp"
#include "edgecnn/results.hpp"

namespace edgecnn {

// A view of a picture, uint8 [height_px, width_px, 3] BGR; the caller owns the pixels.
struct Picture {
    const std::uint8_t* bgr = nullptr;
    int height_px = 0;
    int width_px = 0;
    std::size_t stride_bytes = 0;  // from row to row; 0 for rows without gaps
};

// How to open a bundle.
struct Options {
    // "openvino" or "onnx". The bundle's evidence for ONNX is of ONNX Runtime, so it runs only where it is asked for.
    std::string format = "openvino";
    std::string precision;      // "fp32", "fp16", "bf16" or "int8"; "" for the most exact one that the bundle has
    std::string device = "cpu";  // "cpu", "gpu" or "npu"
    int threads = 0;             // per inference; 0 for the cores that this process may use
    std::optional<float> score;    // a detector's thresholds; without them, the bundle's
    std::optional<float> nms_iou;
};

// Durations of the last picture's stages.
struct StageTimes {
    std::int64_t fit_ns = 0;
    std::int64_t infer_ns = 0;
    std::int64_t finish_ns = 0;
};

// An open bundle. Calls from several threads wait for each other, and each gets its own result.
class Runner {
  public:
    // Throws BundleError, SpecError or DeviceError.
    explicit Runner(const std::string& bundle, const Options& options = {});
    Runner(Runner&&) noexcept;
    Runner& operator=(Runner&&) noexcept;
    ~Runner();

    // The network's result for one picture. Throws SpecError or DeviceError.
    Result operator()(const Picture& picture);

    const std::string& task() const;                 // "detect", "segment" or "classify"
    const std::vector<std::string>& labels() const;  // by class id
    StageTimes stage_times() const;

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace edgecnn
