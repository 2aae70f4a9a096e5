// What a network says of one picture, in pixels of the picture that was given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

namespace edgecnn {

// Objects, best first.
struct Detections {
    std::vector<float> boxes_xyxy_px;  // [n, 4]: left, top, right, bottom, clipped to the picture
    std::vector<float> scores;         // [n] in [0, 1], falling
    std::vector<std::int64_t> class_ids;

    std::size_t size() const { return scores.size(); }
};

// Classes of the whole picture, best first.
struct Classification {
    std::vector<std::int64_t> class_ids;
    std::vector<float> scores;  // probabilities in [0, 1], falling

    std::size_t size() const { return scores.size(); }
};

// A class for every pixel.
struct SegmentationMap {
    std::int32_t height_px = 0;
    std::int32_t width_px = 0;
    std::vector<std::uint8_t> classes;  // [height_px, width_px] class ids
};

using Result = std::variant<Detections, Classification, SegmentationMap>;

}  // namespace edgecnn
