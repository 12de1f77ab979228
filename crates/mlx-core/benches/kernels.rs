//! What CPU kernels take alone, by each instruction set that this machine has beside plain Rust.
//!
//! ```text
//! cargo bench -p mlx-core --bench kernels
//! cargo bench -p mlx-core --bench kernels -- 'generation.*4-bit'
//! ```
//!
//! Weights are more than caches hold, so that those of generation are read from memory, as in a model.

use std::fmt;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use mlx_core::fast::AttentionMask;
use mlx_core::kernels::{self, Arithmetic, GatedActivation, Isa, KernelOptions};
use mlx_core::nn::{self, Linear, Module, Rope};
use mlx_core::{
    Array, Device, Dtype, QuantMode, Quantization, QuantizationConfig, Result, Weights, random,
    with_device,
};

fn main() {
    divan::main();
}

/// What a weight is made of.
#[derive(Clone, Copy)]
enum Format {
    Dense(Dtype),
    Packed(Quantization),
}

#[derive(Clone, Copy)]
struct Case {
    isa: Isa,
    format: Format,
    arithmetic: Arithmetic,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.isa.name())?;
        match (self.format, self.arithmetic) {
            (Format::Dense(dtype), _) => write!(f, "{}", dtype.name()),
            (Format::Packed(packed), Arithmetic::Fast) => write!(f, "{packed}"),
            (Format::Packed(packed), Arithmetic::Exact) => write!(f, "{packed}, exact"),
        }
    }
}

fn instruction_sets() -> impl Iterator<Item = Isa> {
    Isa::available().into_iter().filter(|isa| *isa != Isa::SCALAR)
}

fn cases() -> Vec<Case> {
    let affine = |bits| Quantization { bits, ..Quantization::default() };
    let modes = [QuantMode::Mxfp4, QuantMode::Nvfp4, QuantMode::Mxfp8].map(Quantization::of);
    let packed = [2, 3, 4, 5, 6, 8].map(affine).into_iter().chain(modes);
    let dense = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];
    let formats = packed
        .map(|packed| (Format::Packed(packed), Arithmetic::Fast))
        .chain([(Format::Packed(affine(4)), Arithmetic::Exact)])
        .chain(dense.map(|dtype| (Format::Dense(dtype), Arithmetic::Exact)));
    let formats: Vec<_> = formats.collect();
    let of =
        |isa| formats.iter().map(move |&(format, arithmetic)| Case { isa, format, arithmetic });
    instruction_sets().flat_map(of).collect()
}

fn names_of_sets() -> Vec<&'static str> {
    instruction_sets().map(Isa::name).collect()
}

fn normal(shape: &[i32], dtype: Dtype) -> Result<Array> {
    let x = random::normal(shape, dtype, 0.0, 1.0, Some(&random::key(0)?))?;
    x.eval()?;
    Ok(x)
}

/// Runs `f` again and again on a CPU, as `options` say.
fn measure(
    bencher: Bencher<'_, '_>,
    options: KernelOptions,
    counter: impl divan::counter::IntoCounter,
    f: impl Fn() -> Result<Array>,
) {
    let run = || f().and_then(|out| out.eval()).expect("a kernel of sound inputs");
    let all = || {
        // Once before, so that threads and buffers are there.
        run();
        bencher.counter(counter).bench_local(run);
        Ok(())
    };
    with_device(Device::Cpu, || kernels::with_options(options, all)).expect("a CPU");
}

/// A layer of random weights, and how many bytes they are.
fn layer(format: Format, input: i32, output: i32) -> Result<(Linear, usize)> {
    let (dtype, quantization) = match format {
        Format::Dense(dtype) => (dtype, None),
        Format::Packed(packed) => {
            let config = QuantizationConfig { default: packed, ..QuantizationConfig::default() };
            (Dtype::Bfloat16, Some(config))
        }
    };
    let layer = Weights::random(0, dtype, quantization)?.linear("layer", input, output, false)?;
    let (mut n_bytes, mut evaluated) = (0, Ok(()));
    layer.for_each_array(&mut |_, array| {
        n_bytes += array.nbytes();
        if let Err(error) = array.eval() {
            evaluated = Err(error);
        }
    });
    evaluated.map(|()| (layer, n_bytes))
}

fn product(bencher: Bencher<'_, '_>, case: &Case, n_tokens: i32, output: i32) {
    const INPUT: i32 = 4096;
    let Case { isa, format, arithmetic } = *case;
    let made = || -> Result<_> {
        let (layer, n_bytes) = layer(format, INPUT, output)?;
        let dtype = match format {
            Format::Dense(dtype) => dtype,
            Format::Packed(_) => Dtype::Bfloat16,
        };
        Ok((layer, n_bytes, normal(&[n_tokens, INPUT], dtype)?))
    };
    let (layer, n_bytes, x) = with_device(Device::Cpu, made).expect("weights and activations");
    let options = KernelOptions { arithmetic, isa };
    match n_tokens {
        1 => measure(bencher, options, BytesCount::new(n_bytes), || layer.forward(&x)),
        n => measure(bencher, options, ItemsCount::new(n as usize), || layer.forward(&x)),
    }
}

/// One token: bytes of weights per second.
#[divan::bench(args = cases(), sample_count = 20, sample_size = 1)]
fn generation(bencher: Bencher<'_, '_>, case: &Case) {
    product(bencher, case, 1, 32_768);
}

/// A prompt of 128: tokens per second.
#[divan::bench(args = cases(), sample_count = 10, sample_size = 1)]
fn prompt(bencher: Bencher<'_, '_>, case: &Case) {
    product(bencher, case, 128, 4096);
}

fn options(isa: &str) -> KernelOptions {
    let isa = Isa::from_name(isa).unwrap_or(Isa::SCALAR);
    KernelOptions { isa, ..KernelOptions::default() }
}

/// Queries of `n_tokens` at the end of `context` keys: bytes of keys and values, or tokens, per second.
fn attention(bencher: Bencher<'_, '_>, isa: &str, n_tokens: i32, context: i32) {
    let of = |heads, n| normal(&[1, heads, n, 128], Dtype::Bfloat16);
    let made = || Ok([of(16, n_tokens)?, of(2, context)?, of(2, context)?]);
    let [q, k, v] = with_device(Device::Cpu, || -> Result<_> { made() }).expect("arrays");
    let run = || nn::attention(&q, &k, &v, 0.088, AttentionMask::Causal, None);
    match n_tokens {
        1 => measure(bencher, options(isa), BytesCount::new(k.nbytes() + v.nbytes()), run),
        n => measure(bencher, options(isa), ItemsCount::new(n as usize), run),
    }
}

#[divan::bench(args = names_of_sets())]
fn attention_of_a_token_at_8k(bencher: Bencher<'_, '_>, isa: &str) {
    attention(bencher, isa, 1, 8192);
}

#[divan::bench(args = names_of_sets(), sample_count = 20, sample_size = 1)]
fn attention_of_a_prompt_of_512(bencher: Bencher<'_, '_>, isa: &str) {
    attention(bencher, isa, 512, 512);
}

/// What passes over `[512, 4096]` once.
fn pass(bencher: Bencher<'_, '_>, isa: &str, f: impl Fn(&Array) -> Result<Array>) {
    let x = with_device(Device::Cpu, || normal(&[512, 4096], Dtype::Bfloat16)).expect("an array");
    measure(bencher, options(isa), BytesCount::new(x.nbytes()), || f(&x));
}

#[divan::bench(args = names_of_sets())]
fn rms_norm(bencher: Bencher<'_, '_>, isa: &str) {
    let of = || Weights::random(0, Dtype::Bfloat16, None)?.rms_norm("norm", 4096, 1e-6);
    let norm = with_device(Device::Cpu, of).expect("a norm");
    pass(bencher, isa, |x| norm.forward(x));
}

#[divan::bench(args = names_of_sets())]
fn rope(bencher: Bencher<'_, '_>, isa: &str) {
    let rope = Rope::new(128, 1e6);
    pass(bencher, isa, |x| rope.forward(&x.reshape([1, 32, 512, 128])?, 7));
}

#[divan::bench(args = names_of_sets())]
fn swiglu(bencher: Bencher<'_, '_>, isa: &str) {
    pass(bencher, isa, |x| nn::gated(x, x, GatedActivation::Silu));
}

#[divan::bench(args = names_of_sets())]
fn softmax(bencher: Bencher<'_, '_>, isa: &str) {
    pass(bencher, isa, |x| nn::softmax(x, -1));
}
