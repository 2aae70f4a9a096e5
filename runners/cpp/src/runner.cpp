// As runners/runner.py.
#include "edgecnn/runner.hpp"

#include <sched.h>

#include <chrono>
#include <cstring>
#include <mutex>

#include <opencv2/core.hpp>

#include "backend.hpp"
#include "bundle.hpp"
#include "finish.hpp"
#include "frame.hpp"
#include "printable.hpp"

namespace edgecnn {
namespace {

using Clock = std::chrono::steady_clock;

std::int64_t ns_between(Clock::time_point start, Clock::time_point end) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count();
}

int allowed_cores() {
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

double checked_share(const char* name, float value) {
    if (!(value >= 0 && value <= 1)) {
        throw SpecError(std::string(name) + " must be in 0..1, got " + std::to_string(value));
    }
    return value;
}

Task with_thresholds(Task task, const Options& options) {
    if ((options.score || options.nms_iou) && task.kind != Task::Kind::detect) {
        throw SpecError("score, nms_iou: the task " + task.name + " has no such threshold");
    }
    task.score_threshold = options.score ? checked_share("score", *options.score) : task.score_threshold;
    task.nms_iou = options.nms_iou ? checked_share("nms_iou", *options.nms_iou) : task.nms_iou;
    return task;
}

void check_options(const Options& options) {
    if (options.format != "openvino" && options.format != "onnx") {
        throw SpecError("format must be openvino or onnx, got '" + shortened(options.format) + "'");
    }
    if (options.threads < 0) {
        throw SpecError("threads per inference: expected at least 1, or 0 for all cores, got " + std::to_string(options.threads));
    }
}

cv::Mat checked_image(const Picture& picture) {
    const std::size_t row = static_cast<std::size_t>(picture.width_px > 0 ? picture.width_px : 0) * 3;
    const std::size_t stride = picture.stride_bytes == 0 ? row : picture.stride_bytes;
    const bool possible = picture.width_px <= (1 << 20) && picture.height_px <= (1 << 20);
    if (picture.bgr == nullptr || picture.height_px <= 0 || picture.width_px <= 0 || stride < row || !possible) {
        throw SpecError("a picture must be uint8 [height, width, 3] BGR, got " + std::to_string(picture.width_px) + "x" +
                        std::to_string(picture.height_px) + " px with rows of " + std::to_string(picture.stride_bytes) + " bytes");
    }
    return cv::Mat(picture.height_px, picture.width_px, CV_8UC3, const_cast<std::uint8_t*>(picture.bgr), stride);
}

}  // namespace

struct Runner::Parts {
    Manifest manifest;
    Task task;
    std::unique_ptr<Backend> backend;
    std::unique_ptr<FrameFitter> fitter;
    StageTimes times;
    mutable std::mutex mutex;
};

Runner::Runner(const std::string& bundle, const Options& options) : parts_(std::make_unique<Parts>()) {
    check_options(options);
    const HeldFolder held(bundle);
    parts_->manifest = open_manifest(bundle);
    parts_->task = with_thresholds(parts_->manifest.task, options);
    const Artifact& artifact = choose_artifact(parts_->manifest, options.format, options.precision, bundle);
    const std::string path = checked_path(bundle, artifact);
    const std::string precision = options.precision.empty() ? artifact.precision : options.precision;
    const int threads = options.threads > 0 ? options.threads : allowed_cores();
    parts_->backend = std::make_unique<Backend>(path, artifact, parts_->manifest, options.device, precision, threads);
    parts_->fitter = std::make_unique<FrameFitter>(parts_->manifest.frame, parts_->backend->frame());
}

Runner::Runner(Runner&&) noexcept = default;
Runner& Runner::operator=(Runner&&) noexcept = default;
Runner::~Runner() = default;

Result Runner::operator()(const Picture& picture) {
    const cv::Mat image = checked_image(picture);
    const std::lock_guard<std::mutex> lock(parts_->mutex);
    const Manifest& manifest = parts_->manifest;
    const auto start = Clock::now();
    const Placement& place = (*parts_->fitter)(image);
    const std::size_t frame_bytes = static_cast<std::size_t>(manifest.frame.height_px) * manifest.frame.width_px * 3;
    for (std::int64_t i = 1; i < manifest.batch; ++i) {
        std::memcpy(parts_->backend->frame() + frame_bytes * i, parts_->backend->frame(), frame_bytes);
    }
    const auto fitted = Clock::now();
    const Outputs& outputs = parts_->backend->infer();
    const auto inferred = Clock::now();
    Result result = finish(parts_->task, manifest.outputs, outputs, place);
    parts_->times = {ns_between(start, fitted), ns_between(fitted, inferred), ns_between(inferred, Clock::now())};
    return result;
}

const std::string& Runner::task() const {
    return parts_->task.name;
}

const std::vector<std::string>& Runner::labels() const {
    return parts_->task.labels;
}

StageTimes Runner::stage_times() const {
    const std::lock_guard<std::mutex> lock(parts_->mutex);
    return parts_->times;
}

}  // namespace edgecnn
