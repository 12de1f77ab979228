//! Ops that take index arrays, with values in and out of range: what is known is refused, the rest
//! means the nearest position, and nothing reads or writes elsewhere.

use mlx_core::{Array, Device, Dtype, Result, with_device};
use proptest::prelude::*;

use super::model::{Host, integers, positions_of, start};
use super::{Pick, check, picks};

/// An index array with where each of its values means to start; `None` where it is refused.
struct Indices {
    array: Array,
    starts: Option<Host<i32>>,
}

fn indices(pick: &mut Pick, shape: &[i32], size: i32, slice: i32) -> Indices {
    let (host, dtype, lazy) = pick.indices(shape, size);
    let starts = host.data.iter().map(|&value| start(value, size, slice, lazy));
    let starts = starts.collect::<Option<_>>().map(|data| Host::new(shape, data));
    Indices { array: integers(&host, dtype, lazy), starts }
}

fn floats(pick: &mut Pick, shape: &[i32]) -> Host<f32> {
    let n = shape.iter().product::<i32>();
    Host::new(shape, (0..n).map(|_| pick.between(-9, 9) as f32).collect())
}

fn with(position: &[i32], axis: usize, value: i32) -> Vec<i32> {
    let mut position = position.to_vec();
    position[axis] = value;
    position
}

fn on_cpu(f: impl FnOnce() -> Result<Array>) -> Result<Host<f32>> {
    with_device(Device::Cpu, || Host::of(&f()?))
}

fn check_take(pick: &mut Pick) -> Result<(), TestCaseError> {
    let x_shape = pick.shape(1..=3);
    let x = floats(pick, &x_shape);
    let axis = pick.below(x.shape.len());
    let index_shape = pick.shape(0..=2);
    let chosen = indices(pick, &index_shape, x.shape[axis], 1);
    let actual = on_cpu(|| x.to_array().take(&chosen.array, axis as i32));
    let expected = chosen.starts.map(|starts| {
        let shape = [&x.shape[..axis], &index_shape, &x.shape[axis + 1..]].concat();
        let at = |p: Vec<i32>| {
            let (lead, rest) = p.split_at(axis);
            let (index, rest) = rest.split_at(index_shape.len());
            x.get(&[lead, &[starts.get(index)], rest].concat())
        };
        Host::new(&shape, positions_of(&shape).map(at).collect())
    });
    check(actual, expected, &(&x, axis, &chosen.array))
}

fn check_along_axis(pick: &mut Pick) -> Result<(), TestCaseError> {
    let x_shape = pick.shape(1..=3);
    let x = floats(pick, &x_shape);
    let axis = pick.below(x.shape.len());
    let n = pick.between(0, 4);
    let shape = with(&x.shape, axis, n);
    let chosen = indices(pick, &shape, x.shape[axis], 1);
    let Indices { array, starts } = &chosen;
    let along = axis as i32;
    let what = (&x, axis, array);

    let taken = on_cpu(|| x.to_array().take_along_axis(array, along));
    let expected = starts.as_ref().map(|starts| {
        let at = |p: Vec<i32>| x.get(&with(&p, axis, starts.get(&p)));
        Host::new(&shape, positions_of(&shape).map(at).collect())
    });
    check(taken, expected, &what)?;

    let values = floats(pick, &shape);
    let write = |join: fn(f32, f32) -> f32| {
        starts.as_ref().map(|starts| {
            let mut result = x.clone();
            for p in positions_of(&shape) {
                let at = result.flat(&with(&p, axis, starts.get(&p)));
                result.data[at] = join(result.data[at], values.get(&p));
            }
            result
        })
    };
    let put = on_cpu(|| x.to_array().put_along_axis(array, values.to_array(), along));
    check(put, write(|_, new| new), &what)?;
    let added = on_cpu(|| x.to_array().scatter_add_axis(array, &values.to_array(), along));
    check(added, write(|old, new| old + new), &what)
}

type Join = fn(f32, f32) -> f32;
type Scatter = fn(&Array, &[Array], &Array, &[i32]) -> Result<Array>;

const SCATTERS: [(Join, Scatter); 5] = [
    (|_, new| new, |x, i, v, axes| x.scatter(i, v, axes)),
    (|old, new| old + new, |x, i, v, axes| x.scatter_add(i, v, axes)),
    (|old, new| old * new, |x, i, v, axes| x.scatter_prod(i, v, axes)),
    (f32::max, |x, i, v, axes| x.scatter_max(i, v, axes)),
    (f32::min, |x, i, v, axes| x.scatter_min(i, v, axes)),
];

fn check_gather_and_scatter(pick: &mut Pick) -> Result<(), TestCaseError> {
    let x_shape = pick.shape(1..=3);
    let x = floats(pick, &x_shape);
    let sizes: Vec<i32> = x.shape.iter().map(|&size| pick.between(size.min(1), size)).collect();
    let mut axes: Vec<usize> = (0..x.shape.len()).filter(|_| pick.one_in(2)).collect();
    axes.reverse();
    let index_shape: Vec<i32> = (0..pick.below(3)).map(|_| pick.between(1, 3)).collect();
    let all: Vec<Indices> =
        axes.iter().map(|&axis| indices(pick, &index_shape, x.shape[axis], sizes[axis])).collect();
    // MLX makes floats of uint64 beside a signed dtype.
    let is_mixed = all.len() > 1 && all.iter().any(|i| i.array.dtype() == Dtype::Uint64);
    prop_assume!(!is_mixed && !x.shape.contains(&0));
    let arrays: Vec<Array> = all.iter().map(|i| i.array.clone()).collect();
    let index_shape = if axes.is_empty() { vec![] } else { index_shape };
    let axes_c: Vec<i32> = axes.iter().map(|&axis| axis as i32).collect();
    let what = (&x, &axes, &sizes, &arrays);

    let starts: Option<Vec<&Host<i32>>> = all.iter().map(|i| i.starts.as_ref()).collect();
    let shape = [&index_shape[..], &sizes].concat();
    let place = |p: &[i32]| {
        let (index, offset) = p.split_at(index_shape.len());
        let mut place = offset.to_vec();
        for (&axis, starts) in axes.iter().zip(starts.iter().flatten()) {
            place[axis] += starts.get(index);
        }
        x.flat(&place)
    };
    let gathered = on_cpu(|| x.to_array().gather(&arrays, &axes_c, &sizes));
    let expected = starts
        .as_ref()
        .map(|_| Host::new(&shape, positions_of(&shape).map(|p| x.data[place(&p)]).collect()));
    check(gathered, expected, &what)?;

    let values = floats(pick, &shape);
    for (join, scatter) in SCATTERS {
        let scattered = on_cpu(|| scatter(&x.to_array(), &arrays, &values.to_array(), &axes_c));
        let expected = starts.as_ref().map(|_| {
            let mut result = x.clone();
            for p in positions_of(&shape) {
                let at = place(&p);
                result.data[at] = join(result.data[at], values.get(&p));
            }
            result
        });
        check(scattered, expected, &what)?;
    }
    Ok(())
}

type Update = fn(&Array, &Array, &Array, &[i32]) -> Result<Array>;

const UPDATES: [(Join, Update); 5] = [
    (|_, new| new, |x, v, start, axes| x.slice_update_dynamic(v, start, axes)),
    (|old, new| old + new, |x, v, start, axes| x.slice_update_add_dynamic(v, start, axes)),
    (|old, new| old * new, |x, v, start, axes| x.slice_update_prod_dynamic(v, start, axes)),
    (f32::max, |x, v, start, axes| x.slice_update_max_dynamic(v, start, axes)),
    (f32::min, |x, v, start, axes| x.slice_update_min_dynamic(v, start, axes)),
];

fn check_dynamic_slices(pick: &mut Pick) -> Result<(), TestCaseError> {
    let x_shape = pick.shape(1..=3);
    let x = floats(pick, &x_shape);
    let sizes: Vec<i32> = x.shape.iter().map(|&size| pick.between(size.min(1), size)).collect();
    let axes: Vec<usize> = (0..x.shape.len()).filter(|_| pick.one_in(2)).collect();
    let (dtype, lazy) = (pick.index_dtype(), pick.one_in(2));
    let values = axes.iter().map(|&axis| pick.index(x.shape[axis], dtype, !lazy)).collect();
    let start = Host::new(&[axes.len() as i32], values);
    let mut place = vec![0; x.shape.len()];
    let mut is_known = true;
    for (&axis, &value) in axes.iter().zip(&start.data) {
        let last = i64::from(x.shape[axis] - sizes[axis]);
        place[axis] = value.clamp(0, last) as i32;
        is_known &= lazy || (0..=last).contains(&value);
    }
    let axes: Vec<i32> = axes.iter().map(|&axis| axis as i32).collect();
    let array = integers(&start, dtype, lazy);
    let at =
        |p: &[i32]| x.flat(&p.iter().zip(&place).map(|(p, start)| p + start).collect::<Vec<_>>());
    let what = (&x, &start, dtype, lazy, &axes, &sizes);

    let sliced = on_cpu(|| x.to_array().slice_dynamic(&array, &axes, &sizes));
    let expected =
        is_known.then(|| Host::new(&sizes, positions_of(&sizes).map(|p| x.data[at(&p)]).collect()));
    check(sliced, expected, &what)?;

    let values = floats(pick, &sizes);
    for (join, update) in UPDATES {
        let updated = on_cpu(|| update(&x.to_array(), &values.to_array(), &array, &axes));
        let expected = is_known.then(|| {
            let mut result = x.clone();
            for p in positions_of(&sizes) {
                result.data[at(&p)] = join(result.data[at(&p)], values.get(&p));
            }
            result
        });
        check(updated, expected, &what)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn take(seed in picks()) {
        check_take(&mut Pick::seeded(seed))?;
    }

    #[test]
    fn along_axis(seed in picks()) {
        check_along_axis(&mut Pick::seeded(seed))?;
    }

    #[test]
    fn gather_and_scatter(seed in picks()) {
        check_gather_and_scatter(&mut Pick::seeded(seed))?;
    }

    #[test]
    fn dynamic_slices(seed in picks()) {
        check_dynamic_slices(&mut Pick::seeded(seed))?;
    }
}
