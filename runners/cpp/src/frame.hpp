// Fits pictures of any size into a network's frame, and maps answers back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <opencv2/core/mat.hpp>

#include "frame_spec.hpp"
#include "resampling.hpp"

namespace edgecnn {

// Position of a source picture in a frame: x_frame = x_source * scale_x + offset_x_px.
struct Placement {
    int source_height_px = 0;
    int source_width_px = 0;
    double scale_x = 1;
    double scale_y = 1;
    int offset_x_px = 0;  // negative where the picture was cut
    int offset_y_px = 0;
    int resized_height_px = 0;
    int resized_width_px = 0;
    int frame_height_px = 0;
    int frame_width_px = 0;

    cv::Rect covered() const;  // the part of the frame that the picture covers
    cv::Rect shown() const;    // the same part, in the resized picture
    // A map over the frame as a map over the source picture, nearest neighbour; what was cut off is 0.
    std::vector<std::uint8_t> map_to_source(const std::uint8_t* frame_map) const;
};

Placement place_in_frame(const FrameSpec& spec, int height_px, int width_px);

// Fits pictures into one reused frame, uint8 [height, width, 3] BGR.
class FrameFitter {
  public:
    // The caller owns `frame`.
    FrameFitter(const FrameSpec& spec, std::uint8_t* frame);
    // Throws SpecError: no picture.
    const Placement& operator()(const cv::Mat& image);

  private:
    FrameSpec spec_;
    cv::Mat frame_;
    Placement place_;
    std::unique_ptr<Resampler> resampler_;
};

}  // namespace edgecnn
