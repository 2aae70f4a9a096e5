// The checks are those of edgecnn/tasks/.
#include "task.hpp"

#include "edgecnn/errors.hpp"
#include "fields.hpp"
#include "printable.hpp"

namespace edgecnn {
namespace {

constexpr std::int64_t kMostDetections = 1'000'000;

std::vector<std::string> read_labels(const Value& value) {
    std::vector<std::string> labels;
    for (const Value& label : few(value)) {
        labels.push_back(label.text());
        if (letters(labels.back()).size() > kLongestName) {
            label.refuse("at most 1000 letters");
        }
    }
    return labels;
}

}  // namespace

Task read_task(const Value& value) {
    Task task;
    task.name = value.member("kind").text();
    task.labels = read_labels(value.member("labels"));
    if (task.name == "detect") {
        task.kind = Task::Kind::detect;
        task.score_threshold = share_or(value, "score_threshold", task.score_threshold);
        task.nms_iou = share_or(value, "nms_iou", task.nms_iou);
        task.max_detections = integer_or(value, "max_detections", task.max_detections, 1, kMostDetections);
        task.max_candidates = integer_or(value, "max_candidates", task.max_candidates, 1, INT64_MAX);
        task.multi_label = boolean_or(value, "multi_label", false);
    } else if (task.name == "segment") {
        task.kind = Task::Kind::segment;
        task.decided_in_graph = word_in(value, "decided_in", {"graph", "finish"}) == 0;
        if (task.labels.size() > 256) {
            throw BundleError("task.labels must be at most 256 to segment, got " + std::to_string(task.labels.size()));
        }
    } else if (task.name == "classify") {
        task.kind = Task::Kind::classify;
        task.top = integer_or(value, "top", task.top, 1, static_cast<std::int64_t>(kMostNames));
    } else {
        value.member("kind").refuse("detect, segment or classify: the C++ runner has no other task");
    }
    return task;
}

std::vector<Form> forms_of(const Task& task) {
    switch (task.kind) {
        case Task::Kind::detect:
            return {{"boxes", "float32", {"batch", "N", "4"}}, {"scores", "float32", {"batch", "N", "C"}}};
        case Task::Kind::segment:
            return task.decided_in_graph ? std::vector<Form>{{"classes", "uint8", {"batch", "h", "w"}}}
                                         : std::vector<Form>{{"logits", "float32", {"batch", "C", "h", "w"}}};
        default:
            return {{"scores", "float32", {"batch", "C"}}};
    }
}

}  // namespace edgecnn
