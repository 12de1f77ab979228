//! `Array::at` and its updates against a model of NumPy's rules on the host.

use mlx_core::{Array, Device, Dtype, Ellipsis, IndexItem, NewAxis, Slice, with_device};
use proptest::prelude::*;

/// A row-major array of the host.
#[derive(Clone, Debug, PartialEq)]
struct Host {
    shape: Vec<i32>,
    data: Vec<i32>,
}

impl Host {
    fn range(shape: &[i32]) -> Host {
        Host { shape: shape.to_vec(), data: (0..shape.iter().product()).collect() }
    }

    fn get(&self, position: &[i32]) -> i32 {
        let flat = position.iter().zip(&self.shape).fold(0, |flat, (p, size)| flat * size + p);
        self.data[flat as usize]
    }

    fn to_array(&self) -> Array {
        Array::from_slice(&self.data, &self.shape).unwrap()
    }
}

/// An index as the test has it: plain data.
#[derive(Clone, Debug)]
enum Item {
    Int(i32),
    Slice(Option<i32>, Option<i32>, i32),
    NewAxis,
    Ellipsis,
    Array(Host, Dtype),
}

impl Item {
    fn to_index(&self) -> IndexItem {
        match self {
            Item::Int(position) => (*position).into(),
            Item::Slice(start, stop, step) => {
                Slice { start: *start, stop: *stop, step: *step }.into()
            }
            Item::NewAxis => NewAxis.into(),
            Item::Ellipsis => Ellipsis.into(),
            Item::Array(indices, dtype) => indices.to_array().astype(*dtype).unwrap().into(),
        }
    }
}

/// Python's `range(*slice(start, stop, step).indices(size))`.
fn slice_positions(start: Option<i32>, stop: Option<i32>, step: i32, size: i32) -> Vec<i32> {
    let clamp = |p: i64, low: i64, high: i64| {
        let p = if p < 0 { p + i64::from(size) } else { p };
        p.clamp(low, high)
    };
    let (low, high) = if step > 0 { (0, i64::from(size)) } else { (-1, i64::from(size) - 1) };
    let ends = if step > 0 { (low, high) } else { (high, low) };
    let mut p = start.map_or(ends.0, |p| clamp(p.into(), low, high));
    let stop = stop.map_or(ends.1, |p| clamp(p.into(), low, high));
    let mut positions = Vec::new();
    while if step > 0 { p < stop } else { p > stop } {
        positions.push(p as i32);
        p += i64::from(step);
    }
    positions
}

/// One axis of the result, or the place where the index arrays' axes go.
enum Out {
    New,
    /// Axis of the array, positions on it.
    Axis(usize, Vec<i32>),
    Arrays,
}

/// NumPy's `x[tuple(items)]`; `None` where it raises.
fn model(x: &Host, items: &[Item]) -> Option<Host> {
    let n_axes = items.iter().filter(|i| !matches!(i, Item::NewAxis | Item::Ellipsis)).count();
    let n_ellipses = items.iter().filter(|i| matches!(i, Item::Ellipsis)).count();
    if n_ellipses > 1 || n_axes > x.shape.len() {
        return None;
    }
    let mut written = Vec::new();
    let rest = vec![Item::Slice(None, None, 1); x.shape.len() - n_axes];
    for item in items {
        match item {
            Item::Ellipsis => written.extend(rest.clone()),
            item => written.push(item.clone()),
        }
    }
    if n_ellipses == 0 {
        written.extend(rest);
    }
    let has_arrays = items.iter().any(|i| matches!(i, Item::Array(..)));

    // Per axis of x that an array or an integer takes: its values, negative ones resolved.
    let mut taken: Vec<(usize, Host)> = Vec::new();
    let mut out = Vec::new();
    let mut first_and_last = None;
    let mut axis = 0;
    for (place, item) in written.iter().enumerate() {
        let size = x.shape.get(axis).copied().unwrap_or(0);
        match item {
            Item::NewAxis => {
                out.push(Out::New);
                continue;
            }
            Item::Slice(start, stop, step) => {
                out.push(Out::Axis(axis, slice_positions(*start, *stop, *step, size)));
            }
            Item::Int(position) => {
                let resolved = if *position < 0 { position + size } else { *position };
                if !(0..size).contains(&resolved) {
                    return None;
                }
                taken.push((axis, Host { shape: vec![], data: vec![resolved] }));
            }
            Item::Array(indices, _) => {
                let resolve = |&p: &i32| {
                    let p = if p < 0 { p + size } else { p };
                    (0..size).contains(&p).then_some(p)
                };
                let data = indices.data.iter().map(resolve).collect::<Option<_>>()?;
                taken.push((axis, Host { shape: indices.shape.clone(), data }));
            }
            Item::Ellipsis => unreachable!(),
        }
        if has_arrays && matches!(item, Item::Int(_) | Item::Array(..)) {
            match &mut first_and_last {
                None => {
                    first_and_last = Some((place, place));
                    out.push(Out::Arrays);
                }
                Some((_, last)) => *last = place,
            }
        }
        axis += 1;
    }
    let broadcast = broadcast(taken.iter().map(|(_, host)| &host.shape[..]))?;
    let together = first_and_last.is_none_or(|(first, last)| {
        written[first..=last].iter().all(|i| matches!(i, Item::Int(_) | Item::Array(..)))
    });
    if !together {
        out.retain(|part| !matches!(part, Out::Arrays));
        out.insert(0, Out::Arrays);
    }

    let mut shape = Vec::new();
    for part in &out {
        match part {
            Out::New => shape.push(1),
            Out::Axis(_, positions) => shape.push(positions.len() as i32),
            Out::Arrays => shape.extend(&broadcast),
        }
    }
    let data = positions_of(&shape)
        .map(|position| {
            let mut source = vec![0; x.shape.len()];
            let mut of_arrays: &[i32] = &[];
            let mut at = 0;
            for part in &out {
                match part {
                    Out::New => at += 1,
                    Out::Axis(axis, positions) => {
                        source[*axis] = positions[position[at] as usize];
                        at += 1;
                    }
                    Out::Arrays => {
                        of_arrays = &position[at..at + broadcast.len()];
                        at += broadcast.len();
                    }
                }
            }
            for (axis, host) in &taken {
                let lead = of_arrays.len().saturating_sub(host.shape.len());
                let own: Vec<i32> = of_arrays[lead..]
                    .iter()
                    .zip(&host.shape)
                    .map(|(p, size)| if *size == 1 { 0 } else { *p })
                    .collect();
                source[*axis] = host.get(&own);
            }
            x.get(&source)
        })
        .collect();
    Some(Host { shape, data })
}

fn broadcast<'a>(shapes: impl Iterator<Item = &'a [i32]>) -> Option<Vec<i32>> {
    let mut result: Vec<i32> = Vec::new();
    for shape in shapes {
        while result.len() < shape.len() {
            result.insert(0, 1);
        }
        let lead = result.len() - shape.len();
        for (r, &s) in result[lead..].iter_mut().zip(shape) {
            match (*r, s) {
                (r, s) if r == s => {}
                (1, s) => *r = s,
                (_, 1) => {}
                _ => return None,
            }
        }
    }
    Some(result)
}

/// Every position of a shape in row-major order.
fn positions_of(shape: &[i32]) -> impl Iterator<Item = Vec<i32>> {
    let n: i32 = shape.iter().product();
    let shape = shape.to_vec();
    (0..n).map(move |mut flat| {
        let mut position = vec![0; shape.len()];
        for (p, size) in position.iter_mut().zip(&shape).rev() {
            *p = flat % size;
            flat /= size;
        }
        position
    })
}

fn any_shape() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(prop_oneof![1 => Just(0), 12 => 1..5i32], 0..5)
}

fn any_bound() -> impl Strategy<Value = Option<i32>> {
    prop_oneof![
        2 => Just(None),
        6 => (-6..7i32).prop_map(Some),
        1 => prop::sample::select(&[i32::MIN, i32::MAX, -100, 100][..]).prop_map(Some),
    ]
}

fn any_step() -> impl Strategy<Value = i32> {
    prop_oneof![
        4 => Just(1),
        4 => prop::sample::select(&[-1, 2, -2, 3, -3][..]),
        1 => prop::sample::select(&[i32::MAX, -i32::MAX, i32::MIN, 100][..]),
    ]
}

/// Index arrays hold valid positions: MLX does not check them.
fn any_indices(size: i32) -> impl Strategy<Value = Item> {
    let shape = prop_oneof![
        6 => prop::collection::vec(prop::sample::select(&[1, 2, 3][..]), 0..3),
        1 => Just(vec![0]),
    ];
    shape.prop_flat_map(move |shape| {
        let n = if size == 0 { 0 } else { shape.iter().product::<i32>() as usize };
        let shape = if size == 0 { vec![0] } else { shape };
        let value = if size == 0 { (0..1).boxed() } else { (-size..size).boxed() };
        let dtype = prop::sample::select(&[Dtype::Int32, Dtype::Int64, Dtype::Int8][..]);
        (prop::collection::vec(value, n), dtype)
            .prop_map(move |(data, dtype)| Item::Array(Host { shape: shape.clone(), data }, dtype))
    })
}

fn any_item(size: i32) -> BoxedStrategy<Item> {
    prop_oneof![
        4 => (-size - 1..=size).prop_map(Item::Int),
        6 => (any_bound(), any_bound(), any_step()).prop_map(|(a, b, s)| Item::Slice(a, b, s)),
        2 => Just(Item::NewAxis),
        2 => Just(Item::Ellipsis),
        5 => any_indices(size),
    ]
    .boxed()
}

/// A shape and an index that mostly fits: items draw their values from the axis that they are
/// likely to meet.
fn any_case() -> impl Strategy<Value = (Vec<i32>, Vec<Item>)> {
    any_shape().prop_flat_map(|shape| {
        let n = shape.len() + 2;
        prop::collection::vec(any::<prop::sample::Index>(), 0..=n).prop_flat_map(move |picks| {
            let mut axis = 0;
            let items: Vec<_> = picks
                .iter()
                .map(|pick| {
                    // An item that takes no axis now and then shifts the ones after it.
                    let size = shape.get(axis).copied().unwrap_or(2);
                    if pick.index(4) > 0 {
                        axis += 1;
                    }
                    any_item(size)
                })
                .collect();
            (Just(shape.clone()), items)
        })
    })
}

/// Cases of [`any_case`] whose arrays hold a value that the axis they meet does not have: there
/// MLX reads elsewhere, so that only the model can be asked.
fn reads_outside(x: &Host, items: &[Item]) -> bool {
    let n_axes = items.iter().filter(|i| !matches!(i, Item::NewAxis | Item::Ellipsis)).count();
    let mut axis = 0;
    for item in items {
        let size = x.shape.get(axis).copied().unwrap_or(0);
        match item {
            Item::NewAxis => continue,
            Item::Ellipsis => {
                axis += x.shape.len().saturating_sub(n_axes);
                continue;
            }
            Item::Array(indices, _) if indices.data.iter().any(|p| !(-size..size).contains(p)) => {
                return true;
            }
            _ => {}
        }
        axis += 1;
    }
    false
}

fn check_at(shape: &[i32], items: &[Item]) -> Result<(), TestCaseError> {
    let x = Host::range(shape);
    prop_assume!(!reads_outside(&x, items));
    let index: Vec<IndexItem> = items.iter().map(Item::to_index).collect();
    let actual = with_device(Device::Cpu, || {
        let part = x.to_array().at(index)?;
        Ok(Host { shape: part.shape().to_vec(), data: part.to_vec::<i32>()? })
    });
    match (actual, model(&x, items)) {
        (Ok(actual), Some(expected)) => prop_assert_eq!(actual, expected),
        (Err(_), None) => {}
        (actual, expected) => {
            prop_assert!(false, "gave {:?}, expected {:?}", actual, expected);
        }
    }
    Ok(())
}

/// `x.put(index, values)` changes exactly the chosen elements, `put_add` each as often as chosen.
fn check_update(shape: &[i32], items: &[Item]) -> Result<(), TestCaseError> {
    let x = Host::range(shape);
    prop_assume!(!reads_outside(&x, items));
    let index = || -> Vec<IndexItem> { items.iter().map(Item::to_index).collect() };
    let chosen = model(&x, items);
    let actual = with_device(Device::Cpu, || {
        let zeros = x.to_array().zeros_like()?;
        Ok((zeros.put(index(), 7)?.to_vec::<i32>()?, zeros.put_add(index(), 2)?.to_vec::<i32>()?))
    });
    match (actual, chosen) {
        (Ok((set, added)), Some(chosen)) => {
            let mut count = vec![0; x.data.len()];
            chosen.data.iter().for_each(|&position| count[position as usize] += 1);
            let expected: Vec<i32> = count.iter().map(|&n| if n > 0 { 7 } else { 0 }).collect();
            prop_assert_eq!(set, expected);
            prop_assert_eq!(added, count.iter().map(|n| 2 * n).collect::<Vec<_>>());
        }
        (Err(_), None) => {}
        (actual, expected) => {
            prop_assert!(false, "gave {:?}, expected {:?}", actual, expected);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn reads_as_numpy((shape, items) in any_case()) {
        check_at(&shape, &items)?;
    }

    #[test]
    fn updates_what_it_reads((shape, items) in any_case()) {
        check_update(&shape, &items)?;
    }
}

#[test]
fn the_model_knows_numpy() {
    // What NumPy gives for np.arange(24).reshape(2, 3, 4).
    let x = Host::range(&[2, 3, 4]);
    let all = Item::Slice(None, None, 1);
    let array = |data: &[i32]| {
        Item::Array(Host { shape: vec![data.len() as i32], data: data.to_vec() }, Dtype::Int32)
    };
    for (items, shape, data) in [
        (vec![Item::Int(1), Item::Int(-1)], vec![4], vec![20, 21, 22, 23]),
        (vec![Item::Int(0), all.clone(), array(&[0, 3])], vec![2, 3], vec![0, 4, 8, 3, 7, 11]),
        (vec![all.clone(), array(&[2]), array(&[-1, 0])], vec![2, 2], vec![11, 8, 23, 20]),
        (
            vec![array(&[1, 0]), Item::NewAxis, array(&[1, 1]), Item::Int(0)],
            vec![2, 1],
            vec![16, 4],
        ),
        (
            vec![Item::Ellipsis, Item::Slice(None, Some(0), -2)],
            vec![2, 3, 2],
            vec![3, 1, 7, 5, 11, 9, 15, 13, 19, 17, 23, 21],
        ),
    ] {
        assert_eq!(model(&x, &items), Some(Host { shape, data }), "{items:?}");
    }
}
