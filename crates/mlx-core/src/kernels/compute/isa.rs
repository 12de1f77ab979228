//! Which instructions a kernel may use.
//!
//! A kernel is written once, generic over a [`Level`], and compiled for each instruction set by
//! [`multiversion!`]; where the compiler does not find the instructions by itself, the level has
//! them as a function. The scalar level is the specification of the others.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128, __m256, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_add_ps, _mm_and_si128,
    _mm_cvtepi8_epi16, _mm_loadl_epi64, _mm_loadu_si128, _mm_prefetch, _mm_set1_epi16,
    _mm_slli_epi16, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_cvtps_ph,
    _mm256_fmadd_ps, _mm256_hadd_ps,
};
#[cfg(target_arch = "aarch64")]
use std::arch::{
    aarch64::{
        float16x8_t, float32x4_t, vaddq_f32, vcvt_f16_f32, vcvt_f32_f16, vcvt_high_f16_f32,
        vcvt_high_f32_f16, vfmaq_f32, vget_low_f16, vpaddq_f32,
    },
    asm,
};
use std::mem;
use std::sync::OnceLock;

use half::f16;

use super::Float;

/// An instruction set that this CPU has.
///
/// ```
/// use mlx_core::kernels::Isa;
///
/// assert!(Isa::available().contains(&Isa::detect()));
/// assert_eq!(Isa::from_name("scalar").map(|isa| isa.name()), Some("scalar"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(pub(super) Kind);

/// The instruction sets with code of their own, the better ones last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// Plain Rust, on any machine.
    pub const SCALAR: Isa = Isa(Kind::Scalar);

    /// Returns the best that this CPU has.
    pub fn detect() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::available().last().copied().unwrap_or(Isa::SCALAR))
    }

    /// Returns all that this CPU has, the best last.
    pub fn available() -> Vec<Isa> {
        let mut all = vec![Isa::SCALAR];
        #[cfg(target_arch = "x86_64")]
        if has_avx2() {
            all.push(Isa(Kind::Avx2));
            if has_avx512() {
                all.push(Isa(Kind::Avx512));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            all.push(Isa(Kind::Neon));
        }
        all
    }

    /// Returns the one of this name, if this CPU has it.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::available().into_iter().find(|isa| isa.name() == name)
    }

    /// Returns its name: `scalar`, `avx2`, `avx512` or `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }
}

/// Tells whether the CPU has all that code for AVX2 is compiled with.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Tells whether the CPU has, beside AVX2, all that code for AVX-512 is compiled with, but for BF16,
/// which that code asks for itself. Without VNNI, AVX2 has as good products of bytes.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// What a kernel's one source does differently from one instruction set to the next.
///
/// Its functions are only called from code that [`multiversion!`] compiled for the level.
pub(crate) trait Level: Copy {
    /// Returns `a * b + c`, in one rounding where the instruction set has that.
    fn fma(a: f32, b: f32, c: f32) -> f32;

    /// Returns [`Level::fma`] of eight, in a register where the compiler would take eight of them.
    #[inline(always)]
    fn fma8(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| Self::fma(a[i], b[i], c[i]))
    }

    /// Returns the sum of each.
    #[inline(always)]
    fn totals(x: &[[f32; 8]; 4]) -> [f32; 4] {
        let mut totals = [0.0; 4];
        for (total, x) in totals.iter_mut().zip(x) {
            *total = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
        }
        totals
    }

    /// Returns eight bytes in `f32`.
    #[inline(always)]
    fn widen_u8(x: &[u8; 8]) -> [f32; 8] {
        x.map(f32::from)
    }

    /// Returns eight 8-bit floats (E4M3), each divided by `2^8`, which is what their bits are where a half
    /// has its own. Where a `f32` has its own, small ones would be subnormal, and Intel's CPUs take some
    /// hundred cycles for a product with such.
    #[inline(always)]
    fn widen_e4m3(x: &[u8; 8]) -> [f32; 8] {
        Self::widen_f16(&x.map(|x| f16::from_bits((i16::from(x as i8) << 7) as u16 & 0xbf80)))
    }

    /// Has memory that is read soon brought near, if it is there at all.
    #[inline(always)]
    fn prefetch<T>(_at: *const T) {}

    /// Returns eight halves in `f32`.
    #[inline(always)]
    fn widen_f16(x: &[f16; 8]) -> [f32; 8] {
        x.map(Float::to_f32)
    }

    /// Rounds to halves, to nearest, ties to even.
    #[inline(always)]
    fn narrow_f16(x: [f32; 8]) -> [f16; 8] {
        x.map(Float::from_f32)
    }
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Level for Scalar {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        // A fused operation would be a call of the C library where there is no instruction.
        a * b + c
    }
}

/// AVX2 with FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Level for Avx2 {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn fma8(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        // SAFETY: sizes agree; called only where the CPU has the instructions.
        unsafe {
            let [a, b, c] = [a, b, c].map(|x| mem::transmute::<[f32; 8], __m256>(x));
            mem::transmute(_mm256_fmadd_ps(a, b, c))
        }
    }

    #[inline(always)]
    fn totals(x: &[[f32; 8]; 4]) -> [f32; 4] {
        // SAFETY: as above.
        unsafe {
            let [a, b, c, d] = mem::transmute::<[[f32; 8]; 4], [__m256; 4]>(*x);
            let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let [low, high] = mem::transmute::<__m256, [__m128; 2]>(halves);
            mem::transmute(_mm_add_ps(low, high))
        }
    }

    #[inline(always)]
    fn widen_u8(x: &[u8; 8]) -> [f32; 8] {
        // SAFETY: as above.
        unsafe {
            let x = _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast()));
            mem::transmute(_mm256_cvtepi32_ps(x))
        }
    }

    #[inline(always)]
    fn widen_e4m3(x: &[u8; 8]) -> [f32; 8] {
        // SAFETY: as above.
        unsafe {
            let x = _mm_cvtepi8_epi16(_mm_loadl_epi64(x.as_ptr().cast()));
            let mask = _mm_set1_epi16(0xbf80_u16 as i16);
            mem::transmute(_mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16::<7>(x), mask)))
        }
    }

    #[inline(always)]
    fn prefetch<T>(at: *const T) {
        // SAFETY: any address may be asked for.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn widen_f16(x: &[f16; 8]) -> [f32; 8] {
        // SAFETY: as above.
        unsafe { mem::transmute(_mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn narrow_f16(x: [f32; 8]) -> [f16; 8] {
        // SAFETY: as above.
        unsafe {
            mem::transmute(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(mem::transmute::<
                [f32; 8],
                __m256,
            >(x)))
        }
    }
}

/// NEON with dot products of bytes.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub(crate) struct Neon;

#[cfg(target_arch = "aarch64")]
impl Level for Neon {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn fma8(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        // SAFETY: sizes agree; every such CPU has the instructions.
        unsafe {
            let [a, b, c] = [a, b, c].map(|x| mem::transmute::<[f32; 8], [float32x4_t; 2]>(x));
            mem::transmute([vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])])
        }
    }

    #[inline(always)]
    fn totals(x: &[[f32; 8]; 4]) -> [f32; 4] {
        // SAFETY: as above.
        unsafe {
            let x = mem::transmute::<[[f32; 8]; 4], [[float32x4_t; 2]; 4]>(*x);
            let [a, b, c, d] = x.map(|[low, high]| vaddq_f32(low, high));
            mem::transmute(vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)))
        }
    }

    #[inline(always)]
    fn prefetch<T>(at: *const T) {
        let at = at.addr();
        // SAFETY: any address may be asked for.
        unsafe {
            asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nomem, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn widen_f16(x: &[f16; 8]) -> [f32; 8] {
        // SAFETY: as above.
        unsafe {
            let x = mem::transmute::<[f16; 8], float16x8_t>(*x);
            mem::transmute([vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)])
        }
    }

    #[inline(always)]
    fn narrow_f16(x: [f32; 8]) -> [f16; 8] {
        // SAFETY: as above.
        unsafe {
            let [low, high] = mem::transmute::<[f32; 8], [float32x4_t; 2]>(x);
            mem::transmute(vcvt_high_f16_f32(vcvt_f16_f32(low), high))
        }
    }
}

/// Makes `fn name(isa: Isa, …)` out of an `#[inline(always)] fn body<S: Level, …>(…)`, compiled once
/// for each instruction set; AVX-512 takes what is compiled for AVX2.
///
/// ```text
/// multiversion! { pub(crate) fn dot[] = dot_body(a: &[f32], b: &[f32]) -> f32 }
/// multiversion! { pub(crate) fn sum[T: Float] = sum_body(x: &[T]) -> f32 }
/// ```
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident[$($T:ident: $bound:path),*] = $body:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$($T: $bound),*>(isa: $crate::kernels::compute::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $crate::kernels::compute::isa::{self, Kind};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2<$($T: $bound),*>($($arg: $ty),*) $(-> $ret)? {
                $body::<isa::Avx2 $(, $T)*>($($arg),*)
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod")]
            fn neon<$($T: $bound),*>($($arg: $ty),*) $(-> $ret)? {
                $body::<isa::Neon $(, $T)*>($($arg),*)
            }
            match isa.0 {
                Kind::Scalar => $body::<isa::Scalar $(, $T)*>($($arg),*),
                // SAFETY: a value of `Isa` is made only where the CPU has the instructions.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 | Kind::Avx512 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => unsafe { neon($($arg),*) },
            }
        }
    };
}
pub(crate) use multiversion;
