//! NumPy's indexing by its definition: plain loops over row-major vectors.

use mlx_core::{Array, Dtype, Element, Ellipsis, IndexItem, NewAxis, Result, Slice};

/// A row-major array of the host.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Host<T> {
    pub(super) shape: Vec<i32>,
    pub(super) data: Vec<T>,
}

impl<T: Copy> Host<T> {
    pub(super) fn new(shape: &[i32], data: Vec<T>) -> Host<T> {
        assert_eq!(shape.iter().product::<i32>() as usize, data.len());
        Host { shape: shape.to_vec(), data }
    }

    pub(super) fn flat(&self, position: &[i32]) -> usize {
        position.iter().zip(&self.shape).fold(0, |flat, (p, size)| flat * size + p) as usize
    }

    pub(super) fn get(&self, position: &[i32]) -> T {
        self.data[self.flat(position)]
    }

    /// The element that a position of a shape this one broadcasts to has.
    pub(super) fn get_broadcast(&self, position: &[i32]) -> T {
        let lead = position.len() as i64 - self.shape.len() as i64;
        let own: Vec<i32> = (0i64..)
            .zip(&self.shape)
            // A surplus leading axis has size one.
            .map(|(i, &size)| if size == 1 { 0 } else { position[(i + lead) as usize] })
            .collect();
        self.get(&own)
    }
}

impl<T: Element> Host<T> {
    pub(super) fn to_array(&self) -> Array {
        Array::from_slice(&self.data, &self.shape).unwrap()
    }

    pub(super) fn of(array: &Array) -> Result<Host<T>> {
        Ok(Host::new(array.shape(), array.to_vec_as()?))
    }
}

impl Host<i32> {
    pub(super) fn range(shape: &[i32]) -> Host<i32> {
        Host::new(shape, (0..shape.iter().product()).collect())
    }
}

/// Integers as an array, which is still to be computed if `lazy`.
pub(super) fn integers(host: &Host<i64>, dtype: Dtype, lazy: bool) -> Array {
    macro_rules! settled {
        ($($dtype:ident $t:ty,)*) => {
            match dtype {
                $(Dtype::$dtype => {
                    let data: Vec<$t> = host.data.iter().map(|&x| x as $t).collect();
                    Host::new(&host.shape, data).to_array()
                })*
                _ => panic!("{dtype}"),
            }
        };
    }
    let array = settled! {
        Uint8 u8, Uint16 u16, Uint32 u32, Uint64 u64, Int8 i8, Int16 i16, Int32 i32, Int64 i64,
    };
    if lazy { array.add(0).unwrap() } else { array }
}

/// An index as the test has it: plain data.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Int(i32),
    Slice(Option<i32>, Option<i32>, i32),
    NewAxis,
    Ellipsis,
    Truth(bool),
    /// Positions, and whether they are still to be computed.
    Array(Host<i64>, Dtype, bool),
    Mask(Host<bool>, bool),
}

impl Item {
    pub(super) fn to_index(&self) -> IndexItem {
        match self {
            Item::Int(position) => (*position).into(),
            Item::Slice(start, stop, step) => {
                Slice { start: *start, stop: *stop, step: *step }.into()
            }
            Item::NewAxis => NewAxis.into(),
            Item::Ellipsis => Ellipsis.into(),
            Item::Truth(truth) => (*truth).into(),
            Item::Array(indices, dtype, lazy) => integers(indices, *dtype, *lazy).into(),
            Item::Mask(mask, false) => mask.to_array().into(),
            Item::Mask(mask, true) => {
                mask.to_array().logical_not().unwrap().logical_not().unwrap().into()
            }
        }
    }

    fn n_axes(&self) -> usize {
        match self {
            Item::NewAxis | Item::Ellipsis | Item::Truth(_) => 0,
            Item::Mask(mask, _) => mask.shape.len(),
            _ => 1,
        }
    }

    fn is_array(&self) -> bool {
        matches!(self, Item::Truth(_) | Item::Array(..) | Item::Mask(..))
    }
}

/// Where a slice of `slice` positions starts on an axis: `None` where that is refused. What is out
/// of range and not known yet means the nearest.
pub(super) fn start(value: i64, size: i32, slice: i32, lazy: bool) -> Option<i32> {
    let (size, last) = (i64::from(size), i64::from(size - slice));
    let position = if value < 0 { value.saturating_add(size) } else { value };
    let nearest = position.clamp(0, last.max(0));
    (last >= 0 && (lazy || nearest == position)).then_some(nearest as i32)
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

/// NumPy's `x[tuple(items)]` for an `x` that holds its own flat positions; `None` where it raises.
pub(super) fn chosen(x_shape: &[i32], items: &[Item]) -> Option<Host<i32>> {
    let x = Host::range(x_shape);
    let n_axes: usize = items.iter().map(Item::n_axes).sum();
    let n_ellipses = items.iter().filter(|i| matches!(i, Item::Ellipsis)).count();
    if n_ellipses > 1 || n_axes > x.shape.len() {
        return None;
    }
    let mut written = Vec::new();
    let rest = vec![Item::Slice(None, None, 1); x.shape.len() - n_axes];
    for item in items {
        match item {
            // One for no axis stays: it still keeps index arrays apart.
            Item::Ellipsis if !rest.is_empty() => written.extend(rest.clone()),
            item => written.push(item.clone()),
        }
    }
    if n_ellipses == 0 {
        written.extend(rest);
    }
    let has_arrays = items.iter().any(Item::is_array);

    // Per axis of x that an array or an integer takes: its values, negative ones resolved. What a
    // truth value stands for has no axis.
    let mut taken: Vec<(Option<usize>, Host<i32>)> = Vec::new();
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
                let position = start((*position).into(), size, 1, false)?;
                taken.push((Some(axis), Host::new(&[], vec![position])));
            }
            Item::Array(indices, _, lazy) => {
                let data = indices.data.iter().map(|&value| start(value, size, 1, *lazy));
                let data = data.collect::<Option<_>>()?;
                taken.push((Some(axis), Host::new(&indices.shape, data)));
            }
            Item::Truth(truth) => {
                let n = i32::from(*truth);
                taken.push((None, Host::new(&[n], vec![0; n as usize])));
            }
            Item::Mask(mask, _) => {
                if x.shape[axis..axis + mask.shape.len()] != mask.shape {
                    return None;
                }
                let all: Vec<_> = positions_of(&mask.shape).filter(|p| mask.get(p)).collect();
                for i in 0..mask.shape.len() {
                    let own = all.iter().map(|position| position[i]).collect();
                    taken.push((Some(axis + i), Host::new(&[all.len() as i32], own)));
                }
                if mask.shape.is_empty() {
                    let n = i32::from(mask.data[0]);
                    taken.push((None, Host::new(&[n], vec![0; n as usize])));
                }
            }
            Item::Ellipsis => {}
        }
        if has_arrays && (item.is_array() || matches!(item, Item::Int(_))) {
            match &mut first_and_last {
                None => {
                    first_and_last = Some((place, place));
                    out.push(Out::Arrays);
                }
                Some((_, last)) => *last = place,
            }
        }
        axis += item.n_axes();
    }
    let broadcast = broadcast(taken.iter().map(|(_, host)| &host.shape[..]))?;
    let together = first_and_last.is_none_or(|(first, last)| {
        written[first..=last].iter().all(|i| i.is_array() || matches!(i, Item::Int(_)))
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
                if let Some(axis) = axis {
                    source[*axis] = host.get_broadcast(of_arrays);
                }
            }
            x.get(&source)
        })
        .collect();
    Some(Host { shape, data })
}

pub(super) fn broadcast<'a>(shapes: impl Iterator<Item = &'a [i32]>) -> Option<Vec<i32>> {
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
pub(super) fn positions_of(shape: &[i32]) -> impl Iterator<Item = Vec<i32>> + use<> {
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
