// The part of a manifest that a runner works by: frame, task, inputs, outputs and artifacts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "artifact.hpp"
#include "frame_spec.hpp"
#include "task.hpp"

namespace edgecnn {

constexpr int kSchemaVersion = 1;

struct TensorSpec {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
};

struct Manifest {
    FrameSpec frame;
    Task task;
    std::int64_t batch = 1;
    std::vector<TensorSpec> inputs;
    std::vector<TensorSpec> outputs;
    std::vector<Artifact> artifacts;
};

// Reads and checks a manifest; `source` names it in messages. Throws BundleError.
Manifest read_manifest(const std::string& text, const std::string& source);

}  // namespace edgecnn
