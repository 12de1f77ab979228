use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::kernels::compute::{cases, most};

/// Parts that may be absent.
#[derive(Clone, Copy, Debug)]
struct Has {
    state: bool,
    tokens: bool,
}

/// By the formulas, one token after the other: the output and the state.
fn spec<T: Float>(rule: &GatedDelta<'_, T>) -> (Vec<f64>, Vec<f64>) {
    let Sizes { n, l, hk, hv, d, dv } = rule.sizes;
    let wide = |x: &[T]| x.iter().map(|x| f64::from(x.to_f32())).collect::<Vec<f64>>();
    let mut state: Vec<f64> = match rule.state {
        Some(state) => state.iter().copied().map(f64::from).collect(),
        None => vec![0.0; n * hv * dv * d],
    };
    let mut out = Vec::new();
    for (token, qkv) in rule.qkv.chunks(rule.sizes.qkv()).enumerate() {
        for head in 0..hv {
            let unit = |at: usize| {
                let x = wide(&qkv[at..][..d]);
                let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                x.into_iter().map(|x| x / length).collect::<Vec<f64>>()
            };
            let key_head = head / (hv / hk);
            let (q, k) = (unit(key_head * d), unit((hk + key_head) * d));
            let v = wide(&qkv[2 * hk * d + head * dv..][..dv]);
            let at = token * hv + head;
            let x = f64::from(rule.a[at].to_f32() + rule.dt_bias[head]);
            let decay = (-f64::from(rule.a_log[head]).exp() * x.exp().ln_1p()).exp();
            let beta = 1.0 / (1.0 + f64::from(-rule.b[at].to_f32()).exp());
            let is_token = rule.tokens.is_none_or(|tokens| tokens[token] != 0);
            let state = &mut state[(token / l * hv + head) * dv * d..][..dv * d];
            let y: Vec<f64> = state
                .chunks_mut(d)
                .zip(v)
                .map(|(row, v)| {
                    if is_token {
                        row.iter_mut().for_each(|x| *x *= decay);
                        let known: f64 = row.iter().zip(&k).map(|(x, k)| x * k).sum();
                        row.iter_mut().zip(&k).for_each(|(x, k)| *x += (v - known) * beta * k);
                    }
                    let found: f64 = row.iter().zip(&q).map(|(x, q)| x * q).sum();
                    found / (d as f64).sqrt()
                })
                .collect();
            let square = y.iter().map(|y| y * y).sum::<f64>() / dv as f64;
            let z = wide(&rule.z[at * dv..][..dv]);
            out.extend(y.iter().zip(z).zip(rule.norm).map(|((y, z), weight)| {
                let gate = z / (1.0 + (-z).exp());
                y / (square + f64::from(rule.eps)).sqrt() * f64::from(*weight) * gate
            }));
        }
    }
    (out, state)
}

fn check<T: Float>(sizes: Sizes, has: Has, values: &[f32], bound: f64) {
    let Sizes { n, l, hv, d, dv, .. } = sizes;
    let floats = |n: usize, shift: usize| -> Vec<f32> {
        (0..n).map(|i| values[(i * 7 + shift) % values.len()]).collect()
    };
    let of = |n: usize, shift: usize| -> Vec<T> {
        floats(n, shift).into_iter().map(T::from_f32).collect()
    };
    let (qkv, z) = (of(n * l * sizes.qkv(), 0), of(n * l * hv * dv, 1));
    let (a, b) = (of(n * l * hv, 2), of(n * l * hv, 3));
    let (a_log, dt_bias, norm) = (floats(hv, 4), floats(hv, 5), floats(dv, 6));
    let state = floats(n * hv * dv * d, 8);
    let tokens: Vec<u8> = (0..n * l).map(|i| u8::from(values[i % values.len()] > 0.0)).collect();
    let rule = GatedDelta {
        sizes,
        qkv: &qkv,
        z: &z,
        b: &b,
        a: &a,
        a_log: &a_log,
        dt_bias: &dt_bias,
        norm: &norm,
        // Outputs of little length are scaled up, and their rounding with them.
        eps: 1e-2,
        state: has.state.then_some(&state[..]),
        tokens: has.tokens.then_some(&tokens[..]),
    };
    let expected = spec(&rule);
    for isa in Isa::available() {
        let (mut after, mut out) = (vec![f32::NAN; state.len()], vec![T::default(); z.len()]);
        gated_delta(isa, &rule, &mut after, &mut out);
        let out: Vec<f32> = out.into_iter().map(Float::to_f32).collect();
        for (ours, expected, bound) in [(out, &expected.0, bound), (after, &expected.1, 1e-5)] {
            assert_eq!(ours.len(), expected.len());
            for (ours, expected) in ours.into_iter().zip(expected) {
                let error = (f64::from(ours) - expected).abs();
                assert!(error <= bound * expected.abs().max(1.0), "{sizes:?}: {ours} {expected}");
            }
        }
    }
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let heads = (1..4usize, 1..4usize);
    (0..3usize, 0..most(70), heads, 1..most(40), 1..most(40))
        .prop_map(|(n, l, (hk, each), d, dv)| Sizes { n, l, hk, hv: hk * each, d, dv })
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn agrees_with_float64(
        sizes in sizes(),
        (state, tokens) in (any::<bool>(), any::<bool>()),
        values in prop::collection::vec(-2.0..2.0f32, 200..400),
    ) {
        let has = Has { state, tokens };
        check::<f32>(sizes, has, &values, 1e-4);
        check::<f16>(sizes, has, &values, 1e-3);
        check::<bf16>(sizes, has, &values, 5e-3);
    }
}

#[test]
fn several_threads_agree_with_one() {
    let values: Vec<f32> = (0..997).map(|i| (i as f32 * 0.7).sin()).collect();
    let sizes = Sizes { n: 2, l: 40, hk: 4, hv: 8, d: 16, dv: 24 };
    check::<f32>(sizes, Has { state: true, tokens: true }, &values, 1e-4);
}
