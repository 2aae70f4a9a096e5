// As runners/openvino/backend.py.
#include "backend.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <openvino/openvino.hpp>

#include "edgecnn/errors.hpp"
#include "printable.hpp"

namespace edgecnn {
namespace {

const std::set<std::string> kMultipliers = {
    "Convolution",   "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData",
    "Deconvolution", "FullyConnected",   "MatMul",                  "Gemm",
    "convolution",   "fully_connected",
};

// The precision of a kernel, from the end of its name ("brgconv_avx512_1x1_f32"); "" where the name doesn't show it.
std::string computes_in(std::string kernel) {
    static const std::map<std::string, std::string> names = {{"f32", "fp32"},  {"fp32", "fp32"}, {"f16", "fp16"}, {"fp16", "fp16"},
                                                             {"bf16", "bf16"}, {"i8", "int8"},   {"u8", "int8"}};
    kernel = kernel.substr(kernel.rfind('_') + 1);
    std::transform(kernel.begin(), kernel.end(), kernel.begin(), [](unsigned char c) { return std::tolower(c); });
    const auto found = names.find(kernel);
    return found == names.end() ? "" : found->second;
}

std::set<std::string> arithmetic_of(const ov::CompiledModel& compiled) {
    std::set<std::string> found;
    for (const auto& node : compiled.get_runtime_model()->get_ops()) {
        const auto& info = node->get_rt_info();
        const auto layer = info.find("layerType"), kernel = info.find("primitiveType");
        if (layer != info.end() && kernel != info.end() && kMultipliers.count(layer->second.as<std::string>()) != 0) {
            found.insert(computes_in(kernel->second.as<std::string>()));
        }
    }
    found.erase("");
    return found;
}

// That convolutions and matrix products compute in the precision that was asked for, as far as OpenVINO says.
void check_arithmetic(const ov::CompiledModel& compiled, const Artifact& artifact, const std::string& precision) {
    const std::set<std::string> found = arithmetic_of(compiled);
    const bool wrong = !found.empty() && ((precision == "fp32" && found != std::set<std::string>{"fp32"}) ||
                                          (precision == "bf16" && found.count("bf16") == 0) ||
                                          (artifact.int8_mac_share > 0 && found.count("int8") == 0));
    if (wrong) {
        std::string all;
        for (const std::string& each : found) {
            all += " " + each;
        }
        throw DeviceError(artifact.files.front().path + " was to run in " + precision +
                          ", but OpenVINO computes in another precision here:" + all);
    }
}

ov::AnyMap settings(const std::string& provider, const std::string& precision, int threads) {
    // By default OpenVINO runs float files in bf16 where the CPU has it, and in f16 on GPUs.
    const bool on_cpu = provider == "CPU";
    const std::string hint = precision == "bf16" ? "bf16" : precision == "fp16" && !on_cpu ? "f16" : "f32";
    ov::AnyMap all = {{"PERFORMANCE_HINT", "LATENCY"}, {"INFERENCE_PRECISION_HINT", hint}};
    if (on_cpu && threads > 0) {
        all["INFERENCE_NUM_THREADS"] = threads;
    }
    return all;
}

// One for the process, never let go: of two that end in the order in which they began, the second gives signals a stack
// that the first has freed (sigaltstack), and a host that takes signals there, such as Go's or Python's, would crash.
ov::Core& shared_core() {
    static ov::Core* const core = new ov::Core;
    return *core;
}

std::string provider_of(ov::Core& core, const std::string& device, const std::string& precision) {
    std::string provider = device;
    std::transform(provider.begin(), provider.end(), provider.begin(), [](unsigned char c) { return std::toupper(c); });
    std::string available;
    bool there = false;
    for (const std::string& each : core.get_available_devices()) {
        available += (available.empty() ? "" : ", ") + each;
        there = there || each == provider || each.substr(0, each.find('.')) == provider;
    }
    if (!there || (device != "cpu" && device != "gpu" && device != "npu")) {
        throw DeviceError("device '" + shortened(device) + "' is not available in OpenVINO; available here: " + available +
                          ". Give cpu, gpu or npu");
    }
    const std::string wanted = precision == "fp32" ? "FP32" : precision == "bf16" ? "BF16" : "";
    const auto known = core.get_property(provider, ov::device::capabilities);
    if (!wanted.empty() && std::find(known.begin(), known.end(), wanted) == known.end()) {
        throw DeviceError("OpenVINO's " + provider + " cannot compute in " + precision + " here");
    }
    return provider;
}

bool fits(const ov::Output<const ov::Node>& port, const TensorSpec& spec) {
    static const std::map<std::string, ov::element::Type> types = {{"uint8", ov::element::u8}, {"float32", ov::element::f32}};
    const auto type = types.find(spec.dtype);
    const ov::PartialShape shape(std::vector<ov::Dimension>(spec.shape.begin(), spec.shape.end()));
    return type != types.end() && port.get_element_type() == type->second && port.get_partial_shape() == shape;
}

// Where a graph has the outputs of a manifest; their memory is read, so types and shapes must be those that it says.
std::vector<ov::Output<const ov::Node>> ports_of(const ov::CompiledModel& compiled, const Manifest& manifest,
                                                 const std::string& file) {
    if (compiled.inputs().size() != 1 || !fits(compiled.input(), manifest.inputs.front())) {
        throw DeviceError(file + " has another input than the manifest says; convert again");
    }
    std::vector<ov::Output<const ov::Node>> ports;
    for (const TensorSpec& spec : manifest.outputs) {
        for (const auto& port : compiled.outputs()) {
            if (port.get_names().count(spec.name) != 0 && fits(port, spec)) {
                ports.push_back(port);
                break;
            }
        }
    }
    if (ports.size() != manifest.outputs.size()) {
        throw DeviceError(file + " has other outputs than the manifest says; convert again");
    }
    return ports;
}

}  // namespace

struct Backend::Parts {
    ov::CompiledModel compiled;
    std::vector<ov::Output<const ov::Node>> ports;
    ov::InferRequest request;
    Outputs outputs;
};

Backend::Backend(const std::string& path, const Artifact& artifact, const Manifest& manifest, const std::string& device,
                 const std::string& precision, int threads)
    : parts_(std::make_unique<Parts>()) {
    try {
        ov::Core& core = shared_core();
        const std::string provider = provider_of(core, device, precision);
        parts_->compiled = core.compile_model(path, provider, settings(provider, precision, threads));
        check_arithmetic(parts_->compiled, artifact, precision);
        parts_->ports = ports_of(parts_->compiled, manifest, artifact.files.front().path);
        parts_->request = parts_->compiled.create_infer_request();
        parts_->outputs.resize(parts_->ports.size());
    } catch (const Error&) {
        throw;
    } catch (const std::exception& failed) {
        throw DeviceError("OpenVINO cannot open " + path + ": " + shortened(failed.what()));
    }
}

Backend::~Backend() = default;

std::uint8_t* Backend::frame() {
    return parts_->request.get_input_tensor().data<std::uint8_t>();
}

const Outputs& Backend::infer() {
    try {
        parts_->request.infer();
        for (std::size_t i = 0; i < parts_->ports.size(); ++i) {
            parts_->outputs[i] = parts_->request.get_tensor(parts_->ports[i]).data();
        }
    } catch (const std::exception& failed) {
        throw DeviceError("OpenVINO failed on a frame: " + shortened(failed.what()));
    }
    return parts_->outputs;
}

}  // namespace edgecnn
