// As edgecnn/tasks/box_selection.py, whose overlaps are those of OpenCV's NMSBoxesBatched.
#include "box_selection.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace edgecnn {
namespace {

constexpr std::size_t kGrowth = 4;  // of the number of candidates, where the best ones don't fill a result

struct Candidate {
    std::int64_t place;  // in the flat scores
    float score;
};

struct Box {
    double x, y, width, height;
    double right() const { return x + width; }
    double bottom() const { return y + height; }
    double area() const { return width * height; }
    bool is_empty() const { return width <= 0 || height <= 0; }
};

// Index of the largest; of equal ones the first. A NaN is larger than all, as in numpy.
std::int64_t largest(const float* values, std::int64_t count) {
    std::int64_t best = 0;
    for (std::int64_t i = 1; i < count && !std::isnan(values[best]); ++i) {
        if (!(values[i] <= values[best])) {
            best = i;
        }
    }
    return best;
}

double overlapped(const Box& a, const Box& b) {
    if (a.is_empty() || b.is_empty()) {
        return 0;
    }
    const Box &left = a.x < b.x ? a : b, &right = a.x < b.x ? b : a;
    const Box &upper = a.y < b.y ? a : b, &lower = a.y < b.y ? b : a;
    if ((left.x < 0 && left.x + left.width < right.x) || (upper.y < 0 && upper.y + upper.height < lower.y)) {
        return 0;
    }
    const double width = std::min(left.width - (right.x - left.x), right.width);
    const double height = std::min(upper.height - (lower.y - upper.y), lower.height);
    return width <= 0 || height <= 0 ? 0 : width * height;
}

float iou(const Box& a, const Box& b) {
    const double areas = a.area() + b.area();
    const double distance =
        areas <= std::numeric_limits<double>::epsilon() ? 0.0 : 1.0 - overlapped(a, b) / (areas - overlapped(a, b));
    return 1.f - static_cast<float>(distance);
}

// The largest right or lower edge, as OpenCV finds it: in the order of places, since only what follows the last NaN counts.
double largest_edge(const std::vector<Box>& boxes, const std::vector<Candidate>& candidates) {
    std::vector<std::size_t> order(boxes.size());
    std::iota(order.begin(), order.end(), 0);
    const auto has_nan = [](const Box& box) { return std::isnan(box.right()) || std::isnan(box.bottom()); };
    if (std::any_of(boxes.begin(), boxes.end(), has_nan)) {
        std::sort(order.begin(), order.end(), [&](auto a, auto b) { return candidates[a].place < candidates[b].place; });
    }
    double most = 0;
    for (const std::size_t i : order) {
        for (const double edge : {boxes[i].x, boxes[i].y, boxes[i].right(), boxes[i].bottom()}) {
            most = std::max(edge, most);
        }
    }
    return most;
}

// The boxes, those of each class moved to a place of their own.
std::vector<Box> apart(const float* boxes_xyxy, const std::vector<Candidate>& candidates, std::int64_t classes) {
    std::vector<Box> boxes;
    boxes.reserve(candidates.size());
    for (const Candidate& each : candidates) {
        const float* corners = boxes_xyxy + 4 * (each.place / classes);
        const double x = corners[0], y = corners[1];
        boxes.push_back({x, y, corners[2] - x, corners[3] - y});
    }
    const double most = largest_edge(boxes, candidates);
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        const double offset = static_cast<double>(candidates[i].place % classes) * (most + 1);
        boxes[i].x += offset;
        boxes[i].y += offset;
    }
    return boxes;
}

void add_best_of_each_anchor(const float* scores, std::int64_t anchors, std::int64_t classes, float threshold,
                             std::vector<Candidate>& found) {
    for (std::int64_t anchor = 0; anchor < anchors; ++anchor) {
        const float* row = scores + anchor * classes;
        const bool any = std::any_of(row, row + classes, [&](float score) { return score > threshold; });
        const std::int64_t place = any ? anchor * classes + largest(row, classes) : 0;
        if (any && scores[place] > threshold) {
            found.push_back({place, scores[place]});
        }
    }
}

// Indices of the candidates, best first, that no better one of their class overlaps by more than `limit`.
std::vector<std::size_t> suppressed(const std::vector<Box>& boxes, float limit) {
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        const bool keep = std::all_of(kept.begin(), kept.end(), [&](std::size_t j) { return iou(boxes[i], boxes[j]) <= limit; });
        if (keep) {
            kept.push_back(i);
        }
    }
    return kept;
}

// The same, at most `most`: those among the best candidates are the first of all.
std::vector<std::size_t> suppress(const float* boxes_xyxy, const std::vector<Candidate>& candidates, std::int64_t classes,
                                  float limit, std::int64_t most) {
    for (auto looked_at = static_cast<std::size_t>(most);; looked_at *= kGrowth) {
        const bool all = looked_at >= candidates.size();
        const std::vector<Candidate> best(candidates.begin(),
                                          all ? candidates.end() : candidates.begin() + static_cast<std::ptrdiff_t>(looked_at));
        std::vector<std::size_t> kept = suppressed(apart(boxes_xyxy, best, classes), limit);
        if (all || kept.size() >= static_cast<std::size_t>(most)) {
            kept.resize(std::min(kept.size(), static_cast<std::size_t>(most)));
            return kept;
        }
    }
}

}  // namespace

std::vector<Selected> select_boxes(const float* boxes_xyxy, const float* scores, std::int64_t anchors, std::int64_t classes,
                                   const Task& task) {
    const auto threshold = static_cast<float>(task.score_threshold), limit = static_cast<float>(task.nms_iou);
    std::vector<Candidate> candidates;
    if (task.multi_label) {
        for (std::int64_t place = 0; place < anchors * classes; ++place) {
            if (scores[place] > threshold) {
                candidates.push_back({place, scores[place]});
            }
        }
    } else {
        add_best_of_each_anchor(scores, anchors, classes, threshold, candidates);
    }
    // Of equal scores the earlier one is better.
    const auto better = [](const Candidate& a, const Candidate& b) {
        return a.score > b.score || (a.score == b.score && a.place < b.place);
    };
    if (static_cast<std::int64_t>(candidates.size()) > task.max_candidates) {
        const auto last = candidates.begin() + task.max_candidates;
        std::nth_element(candidates.begin(), last, candidates.end(), better);
        candidates.erase(last, candidates.end());
    }
    std::sort(candidates.begin(), candidates.end(), better);
    std::vector<Selected> selected;
    for (const std::size_t i : suppress(boxes_xyxy, candidates, classes, limit, task.max_detections)) {
        selected.push_back({candidates[i].place / classes, candidates[i].place % classes, candidates[i].score});
    }
    return selected;
}

}  // namespace edgecnn
