//! Names that differ: Python's on the left, where it is here on the right.
//!
//! What is not listed has its own name: a method of [`Array`](crate::Array) or a function of the module
//! that it is in. Dtypes and their categories are variants, `mx.float16` is `Dtype::Float16`; classes are
//! in camel case, `metal_kernel` is `MetalKernel`, `nn.RMSNorm` is `RmsNorm`.
//!
//! | `mlx.core` | here |
//! | --- | --- |
//! | `array`, `asarray`, `ArrayLike` | [`Array::from_slice`](crate::Array::from_slice), `Array::from(2.0f32)`, [`Array::from_bytes`](crate::Array::from_bytes) |
//! | `from_dlpack` | [`Array::from_bytes`](crate::Array::from_bytes) and [`Array::with_bytes`](crate::Array::with_bytes) |
//! | `array.item`, `array.tolist` | [`Array::item`](crate::Array::item), [`Array::to_vec`](crate::Array::to_vec), [`Array::to_vec_as`](crate::Array::to_vec_as) |
//! | `array.itemsize` | [`Dtype::size`](crate::Dtype::size) |
//! | `array.at`, `ArrayAt` | [`Array::put_add`](crate::Array::put_add) and the like |
//! | `x[…]`, `x[…] = y` | [`Array::at`](crate::Array::at), [`Array::put`](crate::Array::put) |
//! | `newaxis`, `...`, `a:b:c` | [`NewAxis`](crate::NewAxis), [`Ellipsis`](crate::Ellipsis), [`Slice`](crate::Slice) |
//! | `slice`, `slice_update` with an array as start | [`Array::slice_dynamic`](crate::Array::slice_dynamic), [`Array::slice_update_dynamic`](crate::Array::slice_update_dynamic) |
//! | `ArrayIterator` | Rust's, over [`Array::unstack`](crate::Array::unstack) |
//! | `acos`, `acosh`, `asin`, `asinh`, `atan`, `atanh`, `atan2` | `Array::arccos`, `arccosh`, `arcsin`, `arcsinh`, `arctan`, `arctanh`, `arctan2` |
//! | `pow` | [`Array::power`](crate::Array::power) |
//! | `conj`, `array.conj` | [`Array::conjugate`](crate::Array::conjugate) |
//! | `bitwise_left_shift`, `bitwise_right_shift` | [`Array::left_shift`](crate::Array::left_shift), [`Array::right_shift`](crate::Array::right_shift) |
//! | `cumulative_sum`, `cumulative_prod` | [`Array::cumsum`](crate::Array::cumsum), [`Array::cumprod`](crate::Array::cumprod) |
//! | `permute_dims`, `transpose` with axes | [`Array::transpose`](crate::Array::transpose) |
//! | `matrix_transpose`, `transpose()`, `array.T` | [`Array::t`](crate::Array::t) |
//! | `concat` | [`ops::concatenate`](crate::ops::concatenate) |
//! | `split` at positions | [`Array::split_at`](crate::Array::split_at) |
//! | `pad` with a mode | [`Array::pad_mode`](crate::Array::pad_mode) |
//! | `roll` along several axes | [`Array::roll_axes`](crate::Array::roll_axes) |
//! | `linspace` without its end | [`ops::linspace_endpoint`](crate::ops::linspace_endpoint) |
//! | `where` | [`ops::where_`](crate::ops::where_) |
//! | `empty`, `empty_like` | [`ops::zeros`](crate::ops::zeros), [`Array::zeros_like`](crate::Array::zeros_like) |
//! | `einsum_path` | none: [`ops::einsum`](crate::ops::einsum) finds its own |
//! | `isdtype`, `issubdtype` | [`Dtype::is_subtype`](crate::Dtype::is_subtype) |
//! | `bool_` | `Dtype::Bool` |
//! | `quantized_matmul`, `gather_qmm`, `dequantize` | [`Packed::matmul`](crate::ops::Packed::matmul), [`Packed::gather_matmul`](crate::ops::Packed::gather_matmul), [`Packed::dequantize`](crate::ops::Packed::dequantize) |
//! | `matrix_norm` | [`linalg::norm`](crate::linalg::norm) |
//! | `random.state` | [`random::state`](crate::random::state), [`random::set_state`](crate::random::set_state) |
//! | `load`, `load(…, return_metadata=True)` | [`load`](crate::load), or of one format: [`load_safetensors_with_metadata`](crate::load_safetensors_with_metadata) and the like |
//! | `save`, `savez`, `savez_compressed` | [`save_npy`](crate::save_npy), [`save_npz`](crate::save_npz), [`save_npz_compressed`](crate::save_npz_compressed) |
//! | `DeviceType`, `cpu`, `gpu` | [`Device`](crate::Device): `Device::Cpu`, `Device::Gpu` |
//! | `set_default_device` | [`with_device`](crate::with_device) |
//! | `device_count`, `device_info`, `is_available` | [`Device::count`](crate::Device::count), [`Device::info`](crate::Device::info), [`Device::is_available`](crate::Device::is_available) |
//! | `stream`, `StreamContext`, `set_default_stream` | [`with_stream`](crate::with_stream) |
//! | `default_stream`, `new_stream` | [`Stream::current`](crate::Stream::current) or [`default_of`](crate::Stream::default_of), [`Stream::new`](crate::Stream::new) |
//! | `synchronize` | [`stream::synchronize`](crate::stream::synchronize), [`Stream::synchronize`](crate::Stream::synchronize) |
//! | `clear_streams` | [`stream::clear`](crate::stream::clear) |
//! | `ThreadLocalStream`, `new_thread_local_stream`, `new_thread_unsafe_stream` | none: every stream is one thread's |
//! | `get_active_memory`, `get_cache_memory`, `get_peak_memory` | [`memory::active`](crate::memory::active), [`memory::cache`](crate::memory::cache), [`memory::peak`](crate::memory::peak) |
//! | `reset_peak_memory`, `set_memory_limit` | [`memory::reset_peak`](crate::memory::reset_peak), [`memory::set_limit`](crate::memory::set_limit) |
//! | `exporter` | [`transforms::export::FunctionExporter`](crate::transforms::export::FunctionExporter) |
//! | `distributed.init` | [`distributed::Group::init`](crate::distributed::Group::init) |
//! | `PrintOptions`, `printoptions`, `get_printoptions`, `set_printoptions` | none: `Display` prints as Python does by default |
//! | `e`, `pi`, `inf`, `nan`, `euler_gamma` | `std::f32::consts`, `f32::INFINITY`, `f32::NAN`; the last is 0.5772156649015329 |
//!
//! | `mlx.nn`, `mlx.optimizers`, `mlx.utils` | here |
//! | --- | --- |
//! | `Module.set_dtype` | [`Module::cast`](crate::nn::Module::cast) |
//! | `Module.eval()`, `Module.train()` | [`Module::train`](crate::nn::Module::train) with `false` or `true` |
//! | `Module.apply` | [`Module::for_each_array_mut`](crate::nn::Module::for_each_array_mut) |
//! | `Module.leaf_modules`, `apply_to_modules` | [`Module::for_each`](crate::nn::Module::for_each): a walk over leaves and their paths |
//! | `nn.quantize` | [`Module::quantize`](crate::nn::Module::quantize) |
//! | `QuantizedLinear`, `QuantizedEmbedding` | [`Linear`](crate::nn::Linear), [`Embedding`](crate::nn::Embedding) |
//! | `nn.GELU`, `nn.LeakyReLU` and the like | [`Activation`](crate::nn::Activation) around the function |
//! | `nn.utils.checkpoint` | [`nn::checkpoint`](crate::nn::checkpoint) |
//! | `optimizers.Adam(…)` and the like | [`Optimizer::new`](crate::optim::Optimizer::new) with a rule, [`Adam`](crate::optim::Adam), and a learning rate |
//! | `tree_map` | [`Parameters::map`](crate::nn::Parameters::map) |
//! | `tree_flatten`, `tree_unflatten` | none: [`Parameters`](crate::nn::Parameters) are flat |
