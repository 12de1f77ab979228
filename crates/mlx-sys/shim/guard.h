// What the shim's own sources share: how an exception becomes an error code.
#pragma once

#include <exception>

#include "caught.h"
#include "shim.h"

namespace mlx_shim {

// Runs `body`; an exception becomes this thread's last error.
template <typename F>
int guard(F&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception& e) {
    mlx_shim_caught(e);
  } catch (...) {
    mlx_shim_set_error(0, "unknown C++ exception");
  }
  return 1;
}

// Lets errors that arrays carry be thrown again; see runtime.cpp.
void rearm_failures() noexcept;

} // namespace mlx_shim
