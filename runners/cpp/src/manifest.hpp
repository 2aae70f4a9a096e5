// The part of a manifest that a runner works by: frame, task, inputs, outputs and artifacts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace edgecnn {

constexpr int kSchemaVersion = 1;

// A network's input: a frame of fixed size. Colour order, scale, mean and std are applied in the graph.
struct FrameSpec {
    enum class Fit { letterbox, stretch, centre_crop };
    enum class Interpolation { nearest, bilinear, bicubic, area };

    int height_px = 0;
    int width_px = 0;
    Fit fit = Fit::letterbox;
    bool centred = true;
    int pad_value = 114;
    int resize_short_px = 0;
    Interpolation interpolation = Interpolation::bilinear;
    bool antialias = false;
};

// What becomes of the network's answer.
struct Task {
    enum class Kind { detect, segment, classify };

    Kind kind = Kind::detect;
    std::string name;
    std::vector<std::string> labels;
    double score_threshold = 0.3;
    double nms_iou = 0.5;
    std::int64_t max_detections = 300;
    std::int64_t max_candidates = 1000;
    bool multi_label = false;
    std::int64_t top = 5;
    bool decided_in_graph = true;
};

struct TensorSpec {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
};

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

struct Manifest {
    FrameSpec frame;
    Task task;
    std::int64_t batch = 1;
    std::vector<TensorSpec> inputs;
    std::vector<TensorSpec> outputs;
    std::vector<Artifact> artifacts;
};

// Reads and checks a manifest; `source` names it in messages. Throws BundleError.
Manifest read_manifest(const std::string& text, const std::string& source);

}  // namespace edgecnn
