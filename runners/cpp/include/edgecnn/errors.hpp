// What the runner throws; the C functions answer these as numbers.
#pragma once

#include <stdexcept>
#include <string>

namespace edgecnn {

// Base of all errors: the message says what was expected, what was found and what to do.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// A bundle is missing, damaged, from a newer schema, or without such an artifact; or a file is not the one that was verified.
class BundleError : public Error {
  public:
    using Error::Error;
};

// A value that was given is not possible: a picture, a threshold, a number of threads.
class SpecError : public Error {
  public:
    using Error::Error;
};

// The device does not exist, or OpenVINO fails on it, or computes in another precision than requested.
class DeviceError : public Error {
  public:
    using Error::Error;
};

}  // namespace edgecnn
