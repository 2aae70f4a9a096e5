// What becomes of a network's answer, and which outputs that needs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.hpp"

namespace edgecnn {

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

// An output that the task works with: its name, its type, and its axes. Equal words are equal extents; "4" is four.
struct Form {
    const char* name;
    const char* dtype;
    std::vector<std::string> axes;
};

// Throws BundleError.
Task read_task(const Value& value);

std::vector<Form> forms_of(const Task& task);

}  // namespace edgecnn
