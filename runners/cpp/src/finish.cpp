// As edgecnn/tasks/detect.py, segment.py and classify.py.
#include "finish.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "box_selection.hpp"

namespace edgecnn {
namespace {

// np.maximum and np.minimum: a NaN stays.
float clipped(float value, float limit) {
    value = value < 0 ? 0 : value;
    return value > limit ? limit : value;
}

Detections finish_detection(const Task& task, const TensorSpec& scores, const Outputs& outputs, const Placement& place) {
    const auto* boxes = static_cast<const float*>(outputs[0]);
    const auto selected = select_boxes(boxes, static_cast<const float*>(outputs[1]), scores.shape[1], scores.shape[2], task);
    const float shift[] = {static_cast<float>(place.offset_x_px), static_cast<float>(place.offset_y_px)};
    const float scale[] = {static_cast<float>(place.scale_x), static_cast<float>(place.scale_y)};
    const float limit[] = {static_cast<float>(place.source_width_px), static_cast<float>(place.source_height_px)};
    Detections found;
    for (const Selected& each : selected) {
        float box[4];
        for (int i = 0; i < 4; ++i) {
            box[i] = clipped((boxes[4 * each.anchor + i] - shift[i % 2]) / scale[i % 2], limit[i % 2]);
        }
        if (box[2] > box[0] && box[3] > box[1]) {  // boxes in a letterbox's border are not in the picture
            found.boxes_xyxy_px.insert(found.boxes_xyxy_px.end(), box, box + 4);
            found.scores.push_back(each.score);
            found.class_ids.push_back(each.class_id);
        }
    }
    return found;
}

Classification finish_classification(const Task& task, const TensorSpec& spec, const Outputs& outputs) {
    const auto* scores = static_cast<const float*>(outputs[0]);
    std::vector<std::int64_t> order(static_cast<std::size_t>(spec.shape[1]));
    std::iota(order.begin(), order.end(), 0);
    const auto last = order.begin() + std::min<std::int64_t>(task.top, spec.shape[1]);
    std::partial_sort(order.begin(), last, order.end(), [&](std::int64_t a, std::int64_t b) {
        const float x = scores[a], y = scores[b];
        if (std::isnan(x) || std::isnan(y)) {  // last, as in numpy
            return std::isnan(x) == std::isnan(y) ? a < b : std::isnan(y);
        }
        return x > y || (x == y && a < b);
    });
    Classification found;
    found.class_ids.assign(order.begin(), last);
    for (const std::int64_t class_id : found.class_ids) {
        found.scores.push_back(scores[class_id]);
    }
    return found;
}

// The best class of each pixel; a NaN is better than all, as in numpy.
std::vector<std::uint8_t> best_classes(const float* logits, std::int64_t classes, std::int64_t pixels) {
    std::vector<float> best(logits, logits + pixels);
    std::vector<std::uint8_t> found(static_cast<std::size_t>(pixels), 0);
    for (std::int64_t class_id = 1; class_id < classes; ++class_id) {
        const float* values = logits + class_id * pixels;
        for (std::size_t i = 0; i < found.size(); ++i) {
            const bool better = !(values[i] <= best[i]) && best[i] == best[i];
            best[i] = better ? values[i] : best[i];
            found[i] = better ? static_cast<std::uint8_t>(class_id) : found[i];
        }
    }
    return found;
}

SegmentationMap finish_segmentation(const Task& task, const TensorSpec& spec, const Outputs& outputs, const Placement& place) {
    SegmentationMap map{place.source_height_px, place.source_width_px, {}};
    if (task.decided_in_graph) {
        map.classes = place.map_to_source(static_cast<const std::uint8_t*>(outputs[0]));
    } else {
        const auto* logits = static_cast<const float*>(outputs[0]);
        map.classes = place.map_to_source(best_classes(logits, spec.shape[1], spec.shape[2] * spec.shape[3]).data());
    }
    return map;
}

}  // namespace

Result finish(const Task& task, const std::vector<TensorSpec>& specs, const Outputs& outputs, const Placement& place) {
    switch (task.kind) {
        case Task::Kind::detect:
            return finish_detection(task, specs[1], outputs, place);
        case Task::Kind::segment:
            return finish_segmentation(task, specs[0], outputs, place);
        default:
            return finish_classification(task, specs[0], outputs);
    }
}

}  // namespace edgecnn
