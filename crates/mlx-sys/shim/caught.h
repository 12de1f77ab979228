// Included before every mlx-c source, whose `catch` blocks are patched to call `mlx_shim_caught`.
//
// mlx-c hands the text of an exception to a printf-like function as the *format*: a `%` in a path
// is then undefined behaviour. It also loses the exception's class. This keeps both.
#pragma once

#ifdef __cplusplus

#include <exception>
#include <new>
#include <stdexcept>
#include <system_error>

extern "C" void mlx_shim_set_error(int kind, const char* text);

inline void mlx_shim_caught(const std::exception& e) {
  // The numbering of `ErrorClass` in mlx-core's ffi.rs.
  int kind = 0;
  if (dynamic_cast<const std::out_of_range*>(&e)) {
    kind = 2;
  } else if (dynamic_cast<const std::logic_error*>(&e)) {
    kind = 1;
  } else if (dynamic_cast<const std::bad_alloc*>(&e)) {
    kind = 3;
  } else if (dynamic_cast<const std::system_error*>(&e)) {
    kind = 4;
  }
  mlx_shim_set_error(kind, e.what());
}

#endif
