// Selects a detector's boxes: the best candidates, without those that better ones overlap.
#pragma once

#include <cstdint>
#include <vector>

#include "task.hpp"

namespace edgecnn {

struct Selected {
    std::int64_t anchor;
    std::int64_t class_id;
    float score;
};

// The selected boxes, best first. `boxes_xyxy` is float32 [anchors, 4], `scores` float32 [anchors, classes].
std::vector<Selected> select_boxes(const float* boxes_xyxy, const float* scores, std::int64_t anchors, std::int64_t classes,
                                   const Task& task);

}  // namespace edgecnn
