// How a network's outputs become results in source pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "edgecnn/results.hpp"
#include "frame.hpp"
#include "manifest.hpp"

namespace edgecnn {

// The outputs of one picture, in the order of the manifest; the runtime's own memory.
using Outputs = std::vector<const void*>;

Result finish(const Task& task, const std::vector<TensorSpec>& specs, const Outputs& outputs, const Placement& place);

}  // namespace edgecnn
