// A network's input: a frame of fixed size, and how pictures are fitted into it.
#pragma once

#include "json.hpp"

namespace edgecnn {

// Colour order, scale, mean and std are applied in the graph.
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

// Throws BundleError.
FrameSpec read_frame(const Value& value);

}  // namespace edgecnn
