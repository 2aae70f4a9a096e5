// Antialiased resize: Pillow's filters, which torchvision's transforms use and OpenCV does not have.
#pragma once

#include <cstdint>
#include <vector>

#include <opencv2/core/mat.hpp>

namespace edgecnn {

// Weights of the input lines of one output line: whole numbers that add up to 1 << shift. Their products with pixels, and
// all sums of these, are whole numbers below 2^24, which a float holds exactly.
struct Line {
    int start = 0;
    std::vector<float> weights;
};

// Resizes pictures of one size in reused buffers, as edgecnn/resampling.py does, to the bit.
class Resampler {
  public:
    // `cut` is the needed part of the whole resized picture; `cubic` is Pillow's BICUBIC, otherwise BILINEAR.
    Resampler(cv::Size source, cv::Size size, cv::Rect cut, bool cubic);
    void operator()(const cv::Mat& image, cv::Mat out);

  private:
    std::vector<Line> across_;
    std::vector<Line> down_;
    int top_;
    int shift_;
    cv::Mat narrow_;
    std::vector<float> row_;  // of the source
    std::vector<float> sums_;
};

}  // namespace edgecnn
