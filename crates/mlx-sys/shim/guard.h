// What the shim's own sources share: how an exception becomes an error code, and what one needs of
// another.
#pragma once

#include <exception>

#include "caught.h"
#include "mlx/distributed/distributed.h"
#include "mlx/stream.h"
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

// The group with its collectives watched; see distributed.cpp.
mlx::core::distributed::Group watch(mlx::core::distributed::Group group);
// Whether a stream may wait forever for another process. No other does, once exit has begun.
bool is_for_collectives(mlx::core::Stream stream);
void begin_exit();
// Drops MLX's groups, as far as nothing of them may still run. No stream works any more.
void leave_groups();

} // namespace mlx_shim
