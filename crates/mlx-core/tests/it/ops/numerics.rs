//! The table of linear algebra, Fourier transforms and the calls of `random` beyond single draws.

use mlx_core::fft::{self, Fft, FftN, FftNorm};
use mlx_core::linalg::{self, NormOrd, Uplo};
use mlx_core::{Array, Axes, Dtype, Result, random};

use super::call::{Call, unknown};

/// Runs a row; `None` where the crate has no such call.
pub(super) fn run(c: &Call<'_>) -> Option<Result<Vec<Array>>> {
    let (family, name) = c.op.split_once('.')?;
    match family {
        "linalg" => decompose(c, name).or_else(|| one(solve(c, name)?)),
        "fft" => one(transform(c, name)?),
        "random" if name == "sequence" => Some(sequence(c.kw("seed")?.as_u64()?)),
        "random" if name == "multivariate_normal" => {
            let (key, shape) = (c.kw_array("key"), c.ints("shape"));
            let (mean, cov) = (c.array(0), c.array(1));
            one(random::multivariate_normal(&mean, &cov, &shape, key.as_ref()))
        }
        _ => None,
    }
}

fn one(result: Result<Array>) -> Option<Result<Vec<Array>>> {
    Some(result.map(|array| vec![array]))
}

fn pair(result: Result<(Array, Array)>) -> Result<Vec<Array>> {
    result.map(|(a, b)| vec![a, b])
}

fn triple(result: Result<(Array, Array, Array)>) -> Result<Vec<Array>> {
    result.map(|(a, b, c)| vec![a, b, c])
}

fn uplo(c: &Call<'_>) -> Uplo {
    if c.text("UPLO") == Some("U") { Uplo::Upper } else { Uplo::Lower }
}

fn decompose(c: &Call<'_>, name: &str) -> Option<Result<Vec<Array>>> {
    let x = c.array(0);
    Some(match name {
        "qr" => pair(linalg::qr(&x)),
        "svd" => triple(linalg::svd(&x)),
        "eig" => pair(linalg::eig(&x)),
        "eigh" => pair(linalg::eigh(&x, uplo(c))),
        "lu" => triple(linalg::lu(&x)),
        "lu_factor" => pair(linalg::lu_factor(&x)),
        "slogdet" => pair(linalg::slogdet(&x)),
        "qr_parts" => qr_parts(&x),
        "svd_parts" => svd_parts(&x),
        "eig_parts" => eig_parts(&x),
        "eigh_parts" => eigh_parts(&x, uplo(c)),
        _ => return None,
    })
}

fn solve(c: &Call<'_>, name: &str) -> Option<Result<Array>> {
    let (x, upper) = (c.array(0), c.flag("upper", false));
    Some(match name {
        "norm" => norm(c),
        "svdvals" => linalg::svdvals(&x),
        "eigvals" => linalg::eigvals(&x),
        "eigvals_sorted" => linalg::eigvals(&x).and_then(|values| sorted(&values)),
        "eigvalsh" => linalg::eigvalsh(&x, uplo(c)),
        "inv" => linalg::inv(&x),
        "tri_inv" => linalg::tri_inv(&x, upper),
        "pinv" => linalg::pinv(&x),
        "cholesky" => linalg::cholesky(&x, upper),
        "cholesky_inv" => linalg::cholesky_inv(&x, upper),
        "solve" => linalg::solve(&x, &c.array(1)),
        "solve_triangular" => linalg::solve_triangular(&x, &c.array(1), upper),
        "cross" => linalg::cross(&x, &c.array(1), c.int("axis", -1)),
        "det" => linalg::det(&x),
        _ => return None,
    })
}

fn norm(c: &Call<'_>) -> Result<Array> {
    let ord = match (c.kw("ord"), c.text("ord")) {
        (None, _) => NormOrd::Euclidean,
        (_, Some("fro")) => NormOrd::Frobenius,
        (_, Some("nuc")) => NormOrd::Nuclear,
        (_, Some(text)) => NormOrd::P(text.parse().map_err(|_| unknown(text))?),
        (Some(number), None) => NormOrd::P(number.as_f64().unwrap()),
    };
    c.with_axes(|axes| linalg::norm(&c.array(0), ord, axes, c.flag("keepdims", false)))
}

fn adjoint(x: &Array) -> Result<Array> {
    x.swapaxes(-1, -2)?.conjugate()
}

fn qr_parts(x: &Array) -> Result<Vec<Array>> {
    let (q, r) = linalg::qr(x)?;
    Ok(vec![q.matmul(&r)?, r.abs()?, adjoint(&q)?.matmul(&q)?])
}

fn svd_parts(x: &Array) -> Result<Vec<Array>> {
    let (u, s, vt) = linalg::svd(x)?;
    let k = s.dim(-1)?;
    let scaled = (u.at((mlx_core::Ellipsis, ..k))? * s.expand_dims(-2)?)?;
    let product = scaled.matmul(&vt.at((mlx_core::Ellipsis, ..k, ..))?)?;
    Ok(vec![s, product, adjoint(&u)?.matmul(&u)?, vt.matmul(&adjoint(&vt)?)?])
}

fn sorted(values: &Array) -> Result<Array> {
    let keys = ((values.real()? * 1000.0)? + values.imag()?)?;
    values.take_along_axis(&keys.argsort(-1)?, -1)
}

fn eig_parts(x: &Array) -> Result<Vec<Array>> {
    let (w, v) = linalg::eig(x)?;
    let scaled = (&v * w.expand_dims(-2)?)?;
    let residual = (x.astype(Dtype::Complex64)?.matmul(&v)? - scaled)?;
    Ok(vec![sorted(&w)?, residual, v.abs()?.square()?.sum(-2, false)?.sqrt()?])
}

fn eigh_parts(x: &Array, uplo: Uplo) -> Result<Vec<Array>> {
    let (w, v) = linalg::eigh(x, uplo)?;
    let product = (&v * w.expand_dims(-2)?)?.matmul(&adjoint(&v)?)?;
    Ok(vec![w, product, adjoint(&v)?.matmul(&v)?])
}

fn transform(c: &Call<'_>, name: &str) -> Option<Result<Array>> {
    let norm = match c.text("norm") {
        None | Some("backward") => FftNorm::Backward,
        Some("ortho") => FftNorm::Ortho,
        Some("forward") => FftNorm::Forward,
        Some(other) => return Some(Err(unknown(other))),
    };
    let (n, d) = (c.int("n", 0), c.float("d", 1.0));
    match name {
        "fftfreq" => return Some(fft::fftfreq(n, d)),
        "rfftfreq" => return Some(fft::rfftfreq(n, d)),
        _ => {}
    }
    let x = c.array(0);
    let one = Fft { n: c.kw("n").map(|_| n), axis: c.int("axis", -1), norm };
    let (s, axes) = (c.ints("s"), c.ints("axes"));
    let some = FftN { s: c.kw("s").map(|_| &s[..]), axes: c.kw("axes").map(|_| &axes[..]), norm };
    let shifted = match c.kw("axes") {
        None => Axes::All,
        Some(axis) if axis.is_i64() => Axes::One(axes[0]),
        Some(_) => Axes::Some(&axes),
    };
    Some(match name {
        "fft" => fft::fft(&x, one),
        "ifft" => fft::ifft(&x, one),
        "rfft" => fft::rfft(&x, one),
        "irfft" => fft::irfft(&x, one),
        "fft2" => fft::fft2(&x, some),
        "ifft2" => fft::ifft2(&x, some),
        "rfft2" => fft::rfft2(&x, some),
        "irfft2" => fft::irfft2(&x, some),
        "fftn" => fft::fftn(&x, some),
        "ifftn" => fft::ifftn(&x, some),
        "rfftn" => fft::rfftn(&x, some),
        "irfftn" => fft::irfftn(&x, some),
        "fftshift" => fft::fftshift(&x, shifted),
        "ifftshift" => fft::ifftshift(&x, shifted),
        _ => return None,
    })
}

fn sequence(seed: u64) -> Result<Vec<Array>> {
    random::seed(seed)?;
    let uniform = random::uniform(0.0, 1.0, &[3], Dtype::Float32, None)?;
    let order = random::permutation_arange(5, None)?;
    let state = random::state()?;
    let normal = random::normal(&[2], Dtype::Float32, 0.0, 1.0, None)?;
    Ok(vec![uniform, order, state, normal])
}
