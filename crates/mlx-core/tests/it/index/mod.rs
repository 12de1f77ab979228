//! Indexing against a model of NumPy's rules on the host: reading, all ways of writing, and index
//! values that are out of range.

mod bounds;
mod mask;
mod model;
mod numpy;

use mlx_core::{Array, Device, Dtype, Index as _, IndexItem, Result, with_device};
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use model::{Host, Item, chosen};

/// Random choices for a case.
pub(super) struct Pick(TestRng);

impl Pick {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }

    fn shape(&mut self, ranks: std::ops::RangeInclusive<i32>) -> Vec<i32> {
        let rank = self.between(*ranks.start(), *ranks.end());
        (0..rank).map(|_| if self.one_in(14) { 0 } else { self.between(1, 4) }).collect()
    }

    /// A shape that broadcasts to `shape`, now and then with leading axes too many.
    fn smaller(&mut self, shape: &[i32]) -> Vec<i32> {
        let n_dropped = if self.one_in(3) { self.below(shape.len() + 1) } else { 0 };
        let mut smaller = shape[n_dropped..].to_vec();
        for size in &mut smaller {
            if self.one_in(4) {
                *size = 1;
            }
        }
        if n_dropped == 0 && self.one_in(6) {
            smaller.insert(0, 1);
        }
        smaller
    }

    fn bound(&mut self) -> Option<i32> {
        match self.below(9) {
            0 | 1 => None,
            2 => Some(self.of(&[i32::MIN, i32::MAX, -100, 100])),
            _ => Some(self.between(-6, 6)),
        }
    }

    fn slice(&mut self) -> Item {
        if self.one_in(3) {
            return Item::Slice(None, None, 1);
        }
        let step = match self.below(9) {
            0 => self.of(&[i32::MAX, -i32::MAX, i32::MIN, 100]),
            1..4 => self.of(&[-1, 2, -2, 3, -3]),
            _ => 1,
        };
        Item::Slice(self.bound(), self.bound(), step)
    }

    /// An index value: mostly on the axis, now and then around its ends or far away.
    fn index(&mut self, size: i32, dtype: Dtype, tame: bool) -> i64 {
        let is_signed = matches!(dtype, Dtype::Int8 | Dtype::Int16 | Dtype::Int32 | Dtype::Int64);
        let value = match self.below(if tame { 20 } else { 4 }) {
            0 => {
                let far = match dtype {
                    Dtype::Int64 => self.of(&[i64::MIN, i64::MAX]),
                    Dtype::Int32 => self.of(&[i32::MIN.into(), i32::MAX.into()]),
                    Dtype::Uint32 => u32::MAX.into(),
                    Dtype::Uint64 => i64::MAX,
                    _ => 100,
                };
                if self.one_in(2) { far } else { self.between(-size - 3, size + 3).into() }
            }
            _ if size == 0 => 0,
            _ => self.between(-size, size - 1).into(),
        };
        if is_signed || value >= 0 { value } else { value.saturating_add(size.into()).max(0) }
    }

    fn index_dtype(&mut self) -> Dtype {
        self.of(&[
            Dtype::Int32,
            Dtype::Int32,
            Dtype::Int64,
            Dtype::Int8,
            Dtype::Int16,
            Dtype::Uint8,
            Dtype::Uint16,
            Dtype::Uint32,
            Dtype::Uint64,
        ])
    }

    /// An index array for an axis; only one that is still to be computed is likely to hold values
    /// that are out of range.
    fn indices(&mut self, shape: &[i32], size: i32) -> (Host<i64>, Dtype, bool) {
        let (dtype, lazy) = (self.index_dtype(), self.one_in(2));
        let n = shape.iter().product::<i32>();
        let data = (0..n).map(|_| self.index(size, dtype, !lazy)).collect();
        (Host::new(shape, data), dtype, lazy)
    }

    fn mask(&mut self, shape: &[i32], n_true: i32) -> Item {
        let n = shape.iter().product::<i32>() as usize;
        let mut data = vec![false; n];
        if n > 0 && n_true >= 0 {
            (0..n_true).for_each(|_| data[self.below(n)] = true);
        } else {
            data.iter_mut().for_each(|truth| *truth = self.one_in(2));
        }
        Item::Mask(Host::new(shape, data), self.one_in(2))
    }

    /// An index that mostly fits the shape: of every kind, in every mixture.
    fn items(&mut self, shape: &[i32]) -> Vec<Item> {
        let mut items = Vec::new();
        // What index arrays mostly broadcast to.
        let common: Vec<i32> = (0..self.below(3)).map(|_| self.between(1, 3)).collect();
        let (mut axis, mut has_ellipsis) = (0, false);
        let kinds = self.of(&[4, 6, 9, 9, 9]);
        while items.len() < 9 {
            let rest = &shape[axis.min(shape.len())..];
            if !has_ellipsis && self.one_in(8) {
                has_ellipsis = true;
                items.push(Item::Ellipsis);
                axis += self.below(rest.len() + 1);
                continue;
            }
            // After an ellipsis the items have to meet the last axis.
            if rest.is_empty() && !self.one_in(5) || (!has_ellipsis && self.one_in(5)) {
                break;
            }
            let size = rest.first().copied().unwrap_or(2);
            let item = match self.below(kinds) {
                0 => Item::NewAxis,
                1 if self.one_in(6) => Item::Int(self.of(&[-size - 1, size, i32::MIN, i32::MAX])),
                1 if size > 0 => Item::Int(self.between(-size, size - 1)),
                1..4 => self.slice(),
                4 | 5 => {
                    let shape = match self.below(12) {
                        0 => self.shape(0..=2),
                        _ => self.smaller(&common),
                    };
                    let (indices, dtype, lazy) = self.indices(&shape, size);
                    Item::Array(indices, dtype, lazy)
                }
                6 if self.one_in(3) => Item::Truth(!self.one_in(3)),
                _ => {
                    let rank = self.below(rest.len().min(3) + 1);
                    let mut shape = rest[..rank].to_vec();
                    if rank > 0 && self.one_in(12) {
                        shape[rank - 1] += 1;
                    }
                    let n_true = match self.below(4) {
                        0 => -1,
                        1 => 1,
                        _ => common.last().copied().unwrap_or(1),
                    };
                    self.mask(&shape, n_true)
                }
            };
            axis += match &item {
                Item::NewAxis | Item::Truth(_) => 0,
                Item::Mask(mask, _) => mask.shape.len(),
                _ => 1,
            };
            items.push(item);
        }
        items
    }
}

/// What the properties draw.
pub(super) fn picks() -> impl Strategy<Value = u64> {
    any::<u64>()
}

impl Pick {
    pub(super) fn seeded(seed: u64) -> Pick {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Pick(TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes))
    }
}

fn to_index(items: &[Item]) -> Vec<IndexItem> {
    items.iter().map(Item::to_index).collect()
}

/// Compares with the model, where a refusal is `None`.
fn check<T: PartialEq + std::fmt::Debug>(
    actual: Result<T>,
    expected: Option<T>,
    what: &dyn std::fmt::Debug,
) -> Result<(), TestCaseError> {
    match (actual, expected) {
        (Ok(actual), Some(expected)) => prop_assert_eq!(actual, expected, "{:?}", what),
        (Err(_), None) => {}
        (actual, expected) => {
            prop_assert!(false, "gave {:?}, expected {:?}: {:?}", actual, expected, what);
        }
    }
    Ok(())
}

fn check_at(pick: &mut Pick) -> Result<(), TestCaseError> {
    let shape = pick.shape(0..=5);
    let items = pick.items(&shape);
    let dtype = pick.of(&[Dtype::Int32, Dtype::Int32, Dtype::Float32, Dtype::Int64, Dtype::Uint16]);
    let actual = with_device(Device::Cpu, || {
        Host::of(&Host::range(&shape).to_array().astype(dtype)?.at(to_index(&items))?)
    });
    check(actual, chosen(&shape, &items), &(shape, items))
}

/// One way of writing: how the model joins the values, and the method.
struct Writer {
    join: fn(f32, f32) -> f32,
    put: fn(&Array, Vec<IndexItem>, &Array) -> Result<Array>,
    /// Whether it is exact for integers.
    exact: bool,
}

const WRITERS: [Writer; 7] = [
    Writer { join: |_, new| new, put: |x, i, v| x.put(i, v), exact: true },
    Writer { join: |old, new| old + new, put: |x, i, v| x.put_add(i, v), exact: true },
    Writer { join: |old, new| old - new, put: |x, i, v| x.put_subtract(i, v), exact: true },
    Writer { join: |old, new| old * new, put: |x, i, v| x.put_multiply(i, v), exact: false },
    Writer { join: |old, new| old / new, put: |x, i, v| x.put_divide(i, v), exact: false },
    Writer { join: f32::max, put: |x, i, v| x.put_maximum(i, v), exact: true },
    Writer { join: f32::min, put: |x, i, v| x.put_minimum(i, v), exact: true },
];

/// Every writer changes exactly what the model chooses, in order, as often as chosen.
fn check_put(pick: &mut Pick) -> Result<(), TestCaseError> {
    let shape = pick.shape(0..=4);
    let items = pick.items(&shape);
    let Writer { join, put, exact } = &WRITERS[pick.below(WRITERS.len())];
    let exact: &[Dtype] =
        if *exact { &[Dtype::Float32, Dtype::Int32, Dtype::Int64] } else { &[Dtype::Float32] };
    let dtype = pick.of(exact);
    let chosen = chosen(&shape, &items);
    let value_shape = match &chosen {
        Some(chosen) => pick.smaller(&chosen.shape),
        None => vec![],
    };
    // Powers of two, so that floats are exact.
    let n = value_shape.iter().product::<i32>();
    let values = (0..n).map(|_| pick.of(&[1.0f32, 2.0, 4.0, -2.0, 8.0])).collect();
    let values = Host::new(&value_shape, values);
    let n = shape.iter().product::<i32>();
    let x = Host::new(&shape, (0..n).map(|x| (x % 17) as f32).collect());

    let actual = with_device(Device::Cpu, || {
        let (x, values) = (x.to_array().astype(dtype)?, values.to_array().astype(dtype)?);
        let index = to_index(&items).into_items();
        let result = put(&x, index, &values)?;
        assert_eq!(result.dtype(), dtype);
        Host::of(&result)
    });
    let expected = chosen.map(|chosen| {
        let mut expected = x.clone();
        for (position, &flat) in model::positions_of(&chosen.shape).zip(&chosen.data) {
            let old = &mut expected.data[flat as usize];
            *old = join(*old, values.get_broadcast(&position));
        }
        expected
    });
    check(actual, expected, &(shape, items, values))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn reads_as_numpy(seed in picks()) {
        check_at(&mut Pick::seeded(seed))?;
    }

    #[test]
    fn writes_as_numpy(seed in picks()) {
        check_put(&mut Pick::seeded(seed))?;
    }
}
