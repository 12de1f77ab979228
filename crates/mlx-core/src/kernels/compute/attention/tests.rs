use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::kernels::compute::packed_rows::{PackedFormat, PackedParts, PackedStore, pack};
use crate::kernels::compute::{cases, every, most};

/// What a case is made of, all sizes of it.
#[derive(Clone, Copy, Debug)]
struct Case {
    b: usize,
    kv: usize,
    shared: usize,
    l: usize,
    s: usize,
    d: usize,
    dv: usize,
    mask: Kind,
    has_sinks: bool,
    soft_cap: Option<f32>,
    /// Rows that the stores of keys and values have beyond those seen.
    spare: usize,
    /// Rows among those seen, behind the first third, that are left out.
    gap: usize,
    /// Bits and group size of packed keys and values.
    packed: Option<(i32, i32)>,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    None,
    Causal,
    Window(usize),
    Bool { per_head: bool },
    Additive { per_head: bool },
}

impl Case {
    const PLAIN: Case = Case {
        b: 1,
        kv: 1,
        shared: 1,
        l: 1,
        s: 1,
        d: 8,
        dv: 8,
        mask: Kind::None,
        has_sinks: false,
        soft_cap: None,
        spare: 0,
        gap: 0,
        packed: None,
        seed: 1,
    };

    fn n_heads(&self) -> usize {
        self.kv * self.shared
    }

    fn scale(&self) -> f32 {
        1.5 / (self.d as f32).sqrt()
    }

    /// Rows that a head's store has.
    fn capacity(&self) -> usize {
        self.s + self.gap + self.spare
    }

    fn skipped(&self) -> Range<usize> {
        self.s / 3..self.s / 3 + self.gap
    }

    /// The place in a head's store of the `j`th key.
    fn place(&self, j: usize) -> usize {
        j + if j < self.s / 3 { 0 } else { self.gap }
    }
}

/// Rows of keys or values, packed too where a case wants that.
struct Stored<T> {
    dense: Vec<T>,
    weight: Vec<u8>,
    scales: Vec<T>,
    biases: Vec<T>,
}

impl<T: Element> Stored<T> {
    fn new(case: &Case, dense: Vec<T>, depth: usize) -> Stored<T> {
        let mut stored = Stored { dense, weight: vec![], scales: vec![], biases: vec![] };
        let Some((bits, group_size)) = case.packed else { return stored };
        let format = PackedFormat::new(bits, group_size).expect("known");
        let n_groups = stored.dense.len() / group_size as usize;
        stored.weight = vec![0; stored.dense.len() * bits as usize / 8];
        stored.scales = vec![T::default(); n_groups];
        stored.biases = vec![T::default(); n_groups];
        let store = PackedStore {
            weight: &raw mut stored.weight[..],
            scales: &raw mut stored.scales[..],
            biases: &raw mut stored.biases[..],
            format,
            capacity: case.capacity(),
        };
        let shape = [case.b * case.kv, case.capacity(), depth];
        // SAFETY: vectors of our own.
        unsafe { pack(Isa::SCALAR, &stored.dense, shape, 0, &store) };
        stored
    }

    fn rows(&self, case: &Case, depth: usize) -> super::Rows<'_, T> {
        let (shape, capacity) = ([case.b, case.kv, case.s + case.gap, depth], case.capacity());
        let head = capacity * depth;
        match case.packed {
            None => {
                let heads = Heads::new(&self.dense, shape, [case.kv * head, head, depth]);
                super::Rows::Dense(heads.expect("fits").without(case.skipped()).expect("fits"))
            }
            Some((bits, group_size)) => {
                let parts = PackedParts {
                    weight: &self.weight,
                    scales: &self.scales,
                    biases: &self.biases,
                    format: PackedFormat::new(bits, group_size).expect("known"),
                };
                let heads = PackedHeads::new(parts, shape, capacity);
                super::Rows::Packed(heads.expect("fits").without(case.skipped()).expect("fits"))
            }
        }
    }

    /// The element at a place, by the format's definition.
    fn at(&self, case: &Case, i: usize) -> f64 {
        let wide = |x: &T| f64::from(x.to_f32());
        let Some((bits, group_size)) = case.packed else { return wide(&self.dense[i]) };
        let (bits, group) = (bits as usize, i / group_size as usize);
        let integer = self.weight[i * bits / 8] >> (i * bits % 8) & ((1u16 << bits) - 1) as u8;
        wide(&self.scales[group]) * f64::from(integer) + wide(&self.biases[group])
    }
}

struct Operands<T> {
    q: Vec<T>,
    k: Stored<T>,
    v: Stored<T>,
    sinks: Vec<T>,
    is_seen: Vec<u8>,
    bias: Vec<T>,
}

impl<T: Element> Operands<T> {
    fn of(case: &Case) -> Operands<T> {
        let Case { b, kv, l, s, d, dv, .. } = *case;
        let mut state = case.seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 22) as f32 - 2.0
        };
        let mut values = |n: usize| -> Vec<T> { (0..n).map(|_| T::from_f32(next())).collect() };
        let h = case.n_heads();
        Operands {
            q: values(b * h * l * d),
            k: Stored::new(case, values(b * kv * case.capacity() * d), d),
            v: Stored::new(case, values(b * kv * case.capacity() * dv), dv),
            sinks: values(h),
            is_seen: values(h * l * s).iter().map(|x| u8::from(x.to_f32() > -1.0)).collect(),
            bias: values(h * l * s),
        }
    }

    fn attention(&self, case: &Case) -> Attention<'_, T> {
        let Case { b, l, s, d, dv, .. } = *case;
        let h = case.n_heads();
        let strides = |per_head: bool| [0, if per_head { l * s } else { 0 }, s, 1];
        let mask = match case.mask {
            Kind::None => Mask::None,
            Kind::Causal => Mask::Causal { window: None },
            Kind::Window(n) => Mask::Causal { window: Some(n) },
            Kind::Bool { per_head } => Mask::Bool(
                MaskArray::new(&self.is_seen, [b, h, l, s], strides(per_head)).expect("fits"),
            ),
            Kind::Additive { per_head } => Mask::Additive(
                MaskArray::new(&self.bias, [b, h, l, s], strides(per_head)).expect("fits"),
            ),
        };
        let heads = |data, shape, strides| Heads::new(data, shape, strides).expect("fits");
        Attention {
            q: heads(&self.q, [b, h, l, d], [h * l * d, l * d, d]),
            k: self.k.rows(case, d),
            v: self.v.rows(case, dv),
            mask,
            sinks: case.has_sinks.then_some(&self.sinks),
            scale: case.scale(),
            soft_cap: case.soft_cap,
        }
    }

    /// The definition, in `f64`.
    fn expected(&self, case: &Case) -> Vec<f64> {
        let Case { b, kv, shared, l, s, d, dv, .. } = *case;
        let (wide, cap) = (|x: &T| f64::from(x.to_f32()), case.capacity());
        let mut out = vec![];
        for (row, q) in self.q.chunks_exact(d).enumerate().take(b * case.n_heads() * l) {
            let (h, i, bh) = (row / l % case.n_heads(), row % l, row / l);
            let head = bh / shared;
            assert!(head < b * kv);
            let score = |j: usize| {
                let k = |i: usize| self.k.at(case, (head * cap + case.place(j)) * d + i);
                let dot: f64 = q.iter().enumerate().map(|(i, q)| wide(q) * k(i)).sum();
                let score = dot * f64::from(case.scale());
                let score = case.soft_cap.map_or(score, |cap| {
                    let cap = f64::from(cap);
                    cap * (score / cap).tanh()
                });
                let at = |per_head: bool| (if per_head { h * l * s } else { 0 }) + i * s + j;
                let is_before = j + l <= i + s;
                let is_seen = match case.mask {
                    Kind::None | Kind::Additive { .. } => true,
                    Kind::Causal => is_before,
                    Kind::Window(n) => is_before && i + s < j + l + n,
                    Kind::Bool { per_head } => self.is_seen[at(per_head)] != 0,
                };
                match case.mask {
                    _ if !is_seen => f64::from(f32::MIN),
                    Kind::Additive { per_head } => score + wide(&self.bias[at(per_head)]),
                    _ => score,
                }
            };
            let scores: Vec<f64> = (0..s).map(score).collect();
            let sink = if case.has_sinks { wide(&self.sinks[h]) } else { f64::NEG_INFINITY };
            let max = scores.iter().copied().fold(sink, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let sum = weights.iter().sum::<f64>() + (sink - max).exp();
            out.extend((0..dv).map(|c| {
                let v = |j: usize| self.v.at(case, (head * cap + case.place(j)) * dv + c);
                (0..s).map(|j| weights[j] / sum * v(j)).sum::<f64>()
            }));
        }
        out
    }
}

fn check<T: Element>(case: &Case, epsilon: f64) {
    let operands = Operands::<T>::of(case);
    let expected = operands.expected(case);
    for isa in Isa::available() {
        let mut out = vec![T::from_f32(f32::NAN); expected.len()];
        attention(isa, &operands.attention(case), Order::HeadsFirst, &mut out);
        let mut rows_first = vec![T::default(); out.len()];
        attention(isa, &operands.attention(case), Order::RowsFirst, &mut rows_first);
        let (h, l, dv) = (case.n_heads(), case.l, case.dv);
        for (i, x) in out.chunks_exact(dv.max(1)).enumerate() {
            let [b, head, row] = [i / (h * l), i / l % h, i % l];
            let other = &rows_first[((b * l + row) * h + head) * dv..][..dv];
            let bits = |x: &[T]| x.iter().map(|x| x.to_f32().to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(x), bits(other), "{isa:?} {case:?} {i}");
        }
        for (i, (ours, expected)) in out.iter().zip(&expected).enumerate() {
            let off = (f64::from(ours.to_f32()) - expected).abs();
            // Scores up to 10 are off by some units of 2⁻²⁴ of their products; values are up to 2.
            let bound = 1e-5 + epsilon * expected.abs();
            assert!(off <= bound, "{isa:?} {case:?} {i}: {}, not {expected}", ours.to_f32());
        }
    }
}

fn check_dtypes(case: &Case) {
    check::<bf16>(case, 2.0f64.powi(-8));
    // What differs is how elements are read, which is looked at elsewhere; an interpreter is slow.
    if !cfg!(miri) {
        check::<f32>(case, 0.0);
        check::<f16>(case, 2.0f64.powi(-11));
    }
}

const MASKS: [Kind; 7] = [
    Kind::None,
    Kind::Causal,
    Kind::Window(5),
    Kind::Bool { per_head: true },
    Kind::Bool { per_head: false },
    Kind::Additive { per_head: true },
    Kind::Additive { per_head: false },
];

#[test]
fn depths_and_masks_of_few_and_many_queries() {
    let mut all = vec![];
    for (d, dv) in [(1, 1), (7, 3), (64, 64), (80, 80), (128, 72), (24, 104)] {
        for (shared, l) in [(1, 1), (2, 1), (3, 1), (2, 2), (7, 1), (8, 1), (9, 1), (3, 23)] {
            let [d, dv, l, s] = [d, dv, l, 101].map(most);
            all.extend(MASKS.map(|mask| Case { shared, l, s, d, dv, mask, ..Case::PLAIN }));
        }
    }
    all.iter().step_by(every(89)).for_each(check_dtypes);
}

#[test]
fn shares_of_keys_are_merged() {
    for mask in MASKS {
        for (kv, shared, l) in [(1, 1, 1), (2, 7, 1), (1, 4, 5)] {
            let case = Case { kv, shared, l, s: 1500, mask, has_sinks: true, ..Case::PLAIN };
            check_dtypes(&Case { spare: 7, ..case });
        }
    }
}

#[test]
fn queries_that_see_nothing_take_the_mean() {
    let mut all = vec![];
    for l in [3, most(40), most(200)] {
        for mask in [Kind::Causal, Kind::Window(2)] {
            all.push(Case { l, s: 2, mask, ..Case::PLAIN });
            all.push(Case { l, s: most(60), shared: 2, mask, ..Case::PLAIN });
        }
    }
    all.iter().step_by(every(5)).for_each(check_dtypes);
    let case = Case { l: 5, s: 70, mask: Kind::Bool { per_head: true }, ..Case::PLAIN };
    let mut operands = Operands::<f32>::of(&case);
    operands.is_seen[70..140].fill(0);
    let mut out = vec![0.0; 40];
    attention(Isa::detect(), &operands.attention(&case), Order::HeadsFirst, &mut out);
    for (ours, expected) in out.iter().zip(operands.expected(&case)) {
        assert!((f64::from(*ours) - expected).abs() < 1e-5, "{ours}, not {expected}");
    }
}

#[test]
fn infinite_and_undefined_scores() {
    for l in [1, most(48)] {
        let case = Case { l, s: 70, mask: Kind::Additive { per_head: false }, ..Case::PLAIN };
        let mut operands = Operands::<f32>::of(&case);
        // The first query sees the last key alone.
        operands.bias[..69].fill(f32::NEG_INFINITY);
        if l > 1 {
            operands.bias[70..140].fill(f32::NEG_INFINITY);
            operands.q[2 * 8] = f32::NAN;
        }
        for isa in Isa::available() {
            let mut out = vec![0.0; l * 8];
            attention(isa, &operands.attention(&case), Order::HeadsFirst, &mut out);
            for (ours, v) in out.iter().zip(&operands.v.dense[69 * 8..]) {
                assert!((ours - v).abs() < 1e-6, "{ours}, not {v}");
            }
            if l > 1 {
                assert!(out[8..24].iter().all(|x| x.is_nan()), "{:?}", &out[8..24]);
                assert!(out[24..].iter().all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn sizes_of_nothing() {
    for case in
        [Case { l: 0, ..Case::PLAIN }, Case { b: 0, ..Case::PLAIN }, Case { dv: 0, ..Case::PLAIN }]
    {
        check_dtypes(&case);
    }
    let case = Case { s: 0, l: 2, ..Case::PLAIN };
    let operands = Operands::<f32>::of(&case);
    let mut out = vec![1.0; 16];
    attention(Isa::SCALAR, &operands.attention(&case), Order::HeadsFirst, &mut out);
    assert_eq!(out, [0.0; 16]);
}

#[test]
fn rows_are_left_out() {
    let mut all = vec![];
    for packed in [None, Some((4, 32)), Some((8, 64))] {
        for (shared, l) in [(1, 1), (7, 1), (2, most(9)), (3, most(30))] {
            let case = Case { shared, l, s: most(130), d: 64, dv: 64, packed, ..Case::PLAIN };
            all.extend(MASKS.map(|mask| Case { gap: 17, spare: 3, mask, ..case }));
        }
    }
    all.iter().step_by(every(37)).for_each(check_dtypes);
}

/// Keys outside of a window, of which reading one would show.
#[test]
fn nothing_outside_of_a_window_is_read() {
    for (shared, l) in [(1, 1), (7, 1), (3, 30)] {
        let case =
            Case { shared, l, s: 3000, mask: Kind::Window(100), has_sinks: true, ..Case::PLAIN };
        let mut operands = Operands::<f32>::of(&case);
        let expected = operands.expected(&case);
        // A product with these is no number, even where a mask hides it.
        operands.k.dense[..(2900 - l) * 8].fill(f32::NAN);
        operands.v.dense[..(2900 - l) * 8].fill(f32::NAN);
        for isa in Isa::available() {
            let mut out = vec![0.0; expected.len()];
            attention(isa, &operands.attention(&case), Order::HeadsFirst, &mut out);
            for (ours, expected) in out.iter().zip(&expected) {
                assert!((f64::from(*ours) - expected).abs() < 1e-5, "{ours}, not {expected}");
            }
        }
    }
}

/// The last queries of a sequence attend as all of them at once do, in chunks or one by one.
#[test]
fn chunks_are_the_whole() {
    for (mask, soft_cap) in
        [(Kind::Causal, None), (Kind::Window(9), None), (Kind::Window(70), Some(4.0))]
    {
        let whole =
            Case { kv: 2, shared: 3, l: 90, s: 90, mask, soft_cap, has_sinks: true, ..Case::PLAIN };
        let operands = Operands::<f32>::of(&whole);
        let h = whole.n_heads();
        for isa in Isa::available() {
            let mut out = vec![0.0; h * 90 * 8];
            attention(isa, &operands.attention(&whole), Order::RowsFirst, &mut out);
            let mut end = 0;
            for l in [30, 1, 1, 33, 5, 8, 12] {
                end += l;
                let data = &operands.q;
                // The store as it was then, with rows to come behind.
                let rows = |stored| {
                    let heads = Heads::new(stored, [1, 2, end, 8], [2 * 90 * 8, 90 * 8, 8]);
                    super::Rows::Dense(heads.expect("fits"))
                };
                let chunk = Attention {
                    q: Heads::new(&data[(end - l) * 8..], [1, h, l, 8], [h * 90 * 8, 90 * 8, 8])
                        .expect("fits"),
                    k: rows(&operands.k.dense),
                    v: rows(&operands.v.dense),
                    ..operands.attention(&whole)
                };
                let mut part = vec![0.0; h * l * 8];
                attention(isa, &chunk, Order::RowsFirst, &mut part);
                for (part, whole) in part.iter().zip(&out[(end - l) * h * 8..]) {
                    assert!((part - whole).abs() < 1e-5, "{end}: {part}, not {whole}");
                }
            }
            assert_eq!(end, 90);
        }
    }
}

#[test]
fn refuses_rows_outside_of_the_data() {
    let data = [0.0f32; 24];
    assert!(Heads::new(&data, [1, 2, 3, 4], [24, 12, 4]).is_some());
    assert!(Heads::new(&data, [1, 2, 3, 4], [24, 13, 4]).is_none());
    assert!(Heads::new(&data, [2, 2, 3, 4], [usize::MAX, 12, 4]).is_none());
    assert!(Heads::new(&data, [usize::MAX, 0, 3, 4], [2, 12, 4]).is_none());
    assert!(MaskArray::new(&data, [1, 2, 3, 4], [0, 0, 0, 1]).is_some());
    assert!(MaskArray::new(&data, [1, 2, 3, 4], [0, 12, 4, 2]).is_none());
}

#[test]
fn exponentials_are_within_two_units() {
    use super::exp::{exp, exp_all};
    use crate::kernels::compute::isa::Scalar;

    for i in 0..2_000_000 {
        let x = -87.3 + i as f32 * (175.0 / 2e6);
        let (ours, expected) = (exp::<Scalar>(x), f64::from(x).exp());
        let unit = f64::from(f32::from_bits((expected as f32).to_bits() + 1) - expected as f32);
        let off = (f64::from(ours) - expected).abs();
        assert!(off <= 2.0 * unit, "{x}: {ours}, not {expected}");
    }
    let mut special = [f32::NEG_INFINITY, -1e38, f32::INFINITY, 100.0, f32::NAN, 0.0, -0.0];
    exp_all::<Scalar>(&mut special);
    assert_eq!(special[..4], [0.0, 0.0, f32::INFINITY, f32::INFINITY]);
    assert!(special[4].is_nan());
    assert_eq!(special[5..], [1.0, 1.0]);
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn agrees_with_the_definition(
        (b, kv, shared) in (1usize..3, 1usize..3, 1..most(16)),
        (l, s) in (1..most(70), 1..most(300)),
        (d, dv) in (prop::sample::select(vec![1, 7, most(64), most(80), most(128)]), 1..most(90)),
        mask in 0usize..MASKS.len(),
        (has_sinks, is_capped) in any::<(bool, bool)>(),
        (spare, gap, seed) in (0usize..5, 0usize..9, any::<u32>()),
        packed in prop::sample::select(vec![None, None, Some((4, 32)), Some((8, 32))]),
    ) {
        let whole_groups = |d: usize| if packed.is_some() { d.next_multiple_of(32) } else { d };
        check_dtypes(&Case {
            b, kv, shared, l, s,
            d: whole_groups(d),
            dv: whole_groups(dv),
            mask: MASKS[mask],
            has_sinks,
            soft_cap: is_capped.then_some(3.0),
            spare,
            gap,
            packed,
            seed: seed.into(),
        });
    }
}
